"""PROXY protocol header: how a relay tells the proxy for which run it connects; sans-io.

Version 2 of HAProxy's specification (proxy-protocol.txt, section 2.2), with five custom values: the
name of the run, its program, a token that proves the name, one that proves the password that the
proxy demands of its clients, and a host name that the relay asks about. Name and program appear in
the audit log, and no decision depends on them. Code that prints them must escape them.

It imports almost nothing, because the relay uses it and must start within milliseconds.
"""

from collections import namedtuple

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"

_PROXY = 0x21  # version 2; the connection is made on behalf of a client
_LOCAL = 0x20  # version 2; the connection is the sender's own (HAProxy's health checks)
_UNSPECIFIED = 0x00
# Bytes of the addresses, by family and transport. They are skipped: the proxy only trusts what the
# kernel says about a peer.
_ADDRESS_SIZES = {
    _UNSPECIFIED: 0,
    **dict.fromkeys((0x11, 0x12), 12),  # IPv4
    **dict.fromkeys((0x21, 0x22), 36),  # IPv6
    **dict.fromkeys((0x31, 0x32), 216),  # Unix
}

# Section 2.2.8: 0xE0 to 0xEF are for custom use.
_NAME = 0xE0
_PROGRAM = 0xE1
_TOKEN = 0xE2
_PASSWORD_PROOF = 0xE3
_ASKED = 0xE4
_VALUE_LIMIT = 255

_PREFIX_SIZE = len(SIGNATURE) + 4  # with version, family and length
_LIMIT = 1024


_Values = namedtuple(  # noqa: PYI024
    "_Values", ["name", "program", "token", "password_proof", "asked"], defaults=["", ""]
)


class Announcement(_Values):
    """The run for which a relay connects; each text may be empty or contain any character."""

    # Not typing.NamedTuple nor a dataclass: their modules take longer to import than the relay.
    __slots__ = ()
    name: str
    program: str
    token: str
    password_proof: str  # SHA-256 in hexadecimal, "" if there is no password
    asked: str  # a host name, instead of a client's bytes: may it have an address?


def encode(name: str, program: str, token: str, password_proof: str = "") -> bytes:
    """Return the header; a value over 255 bytes of UTF-8 is cut after a whole character."""
    values = _tlv(_NAME, name) + _tlv(_PROGRAM, program) + _tlv(_TOKEN, token)
    if password_proof:
        values += _tlv(_PASSWORD_PROOF, password_proof)
    return SIGNATURE + bytes((_PROXY, _UNSPECIFIED)) + len(values).to_bytes(2) + values


def asking(header: bytes, name: str) -> bytes:
    """Return a header that `encode` made, or none, as one that asks about a host name.

    The proxy answers with a line, as `wire.lookup_answer` has it, and closes.
    """
    header = header or encode("", "", "")
    values = header[_PREFIX_SIZE:] + _tlv(_ASKED, name)
    return SIGNATURE + bytes((_LOCAL, _UNSPECIFIED)) + len(values).to_bytes(2) + values


def _tlv(kind: int, text: str) -> bytes:
    # Python decodes a file name that is not UTF-8 with lone surrogates.
    value = text.encode("utf-8", "backslashreplace")[:_VALUE_LIMIT]
    value = value.decode("utf-8", "ignore").encode()
    return bytes((kind,)) + len(value).to_bytes(2) + value


def read(buffer: bytearray) -> Announcement | None:
    """Remove the header from the front of `buffer` and return its values; None while incomplete.

    ValueError if the bytes are not the beginning of a valid header; `buffer` is then unchanged.
    """
    if buffer[: len(SIGNATURE)] != SIGNATURE[: len(buffer)]:
        raise ValueError("the PROXY protocol signature is missing")
    if len(buffer) < _PREFIX_SIZE:
        return None
    command, family = buffer[len(SIGNATURE)], buffer[len(SIGNATURE) + 1]
    end = _PREFIX_SIZE + int.from_bytes(buffer[_PREFIX_SIZE - 2 : _PREFIX_SIZE])
    if command not in (_PROXY, _LOCAL) or family not in _ADDRESS_SIZES:
        raise ValueError("the PROXY protocol header has an unknown command or address family")
    if end > _LIMIT:
        raise ValueError("the PROXY protocol header is too long")
    start = _PREFIX_SIZE + _ADDRESS_SIZES[family]
    if start > end:
        raise ValueError("the addresses of the PROXY protocol header are cut short")
    if len(buffer) < end:
        return None
    announcement = _announcement_of(bytes(buffer[start:end]))
    del buffer[:end]
    return announcement


def _announcement_of(block: bytes) -> Announcement:
    found = dict.fromkeys((_NAME, _PROGRAM, _TOKEN, _PASSWORD_PROOF, _ASKED), "")
    seen = set()
    at = 0
    while at < len(block):
        kind, size = block[at], int.from_bytes(block[at + 1 : at + 3])
        value = block[at + 3 : at + 3 + size]
        if len(block) < at + 3 + size:
            raise ValueError("a value of the PROXY protocol header is cut short")
        at += 3 + size
        if kind not in found:
            continue  # section 2.2: receivers skip unknown values
        if kind in seen or size > _VALUE_LIMIT:
            raise ValueError(
                "the PROXY protocol header repeats a value or has one that is too long"
            )
        seen.add(kind)
        found[kind] = value.decode()  # a UnicodeDecodeError is a ValueError
    return Announcement(*found.values())
