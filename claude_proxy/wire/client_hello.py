"""TLS ClientHello parser: server name (SNI), ALPN, encrypted ClientHello; sans-io.

Agreement: a server name that is hidden by splitting the message over TLS records or TCP segments
(as in CVE-2026-32305) is still read, because there is no result before the last byte of the
message has arrived.
"""

import struct

from claude_proxy.deferred.data_classes import dataclass

HANDSHAKE = 0x16
_CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"
_CLIENT_HELLO = 0x01
_RECORD_LIMIT = 1 << 14  # RFC 8446 section 5.1: a plaintext fragment is at most 2^14 bytes
_HELLO_LIMIT = 1 << 15  # post-quantum key shares need about 2 KiB; no client needs 32 KiB

_SERVER_NAME = 0
_ALPN = 16
_ENCRYPTED_CLIENT_HELLO = 0xFE0D  # RFC 9849, also what GREASE for it looks like

# RFC 8446 section 4.1.3: the `random` that makes a ServerHello a HelloRetryRequest.
_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_RANDOM_AT = 5 + 4 + 2  # record header, handshake header, legacy_version


class HelloUnreadableError(ValueError):
    """These bytes are not, and will not become, a well-formed ClientHello."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client sends before anything is encrypted."""

    sni: str | None  # as sent; None where the extension is missing
    alpn: tuple[bytes, ...]
    encrypted: bool  # an encrypted inner hello is present, so `sni` may be a decoy


def starts_like_tls(data: bytes | bytearray) -> bool | None:
    """Return whether `data` begins a TLS handshake record; None while it is too short."""
    if data and data[0] != HANDSHAKE:
        return False
    if len(data) > 1 and data[1] != 3:  # noqa: PLR2004 - the major version of every SSL 3 and TLS
        return False
    return True if len(data) > 1 else None


class HelloReader:
    """Collects a client's first bytes until its ClientHello is complete.

    Each byte is parsed once, so a slow client costs no more CPU time than a fast one.
    """

    def __init__(self) -> None:
        self.raw = bytearray()  # every byte fed, for the layer that handles TLS next
        self._message = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> ClientHello | None:
        """Return the ClientHello once it is complete, None before.

        HelloUnreadableError if it cannot become valid. After a result, do not call it again.
        """
        self.raw += data
        message = self._message
        while (size := self._fragment_size()) is not None:
            message += self.raw[self._at + 5 : self._at + 5 + size]
            self._at += 5 + size
            if message[0] != _CLIENT_HELLO:
                raise HelloUnreadableError("the first handshake message is not a ClientHello")
            if len(message) < 4:  # noqa: PLR2004 - a handshake header
                continue
            wanted = 4 + int.from_bytes(message[1:4])
            if wanted > _HELLO_LIMIT:
                raise HelloUnreadableError("the ClientHello is too long")
            if len(message) > wanted:
                raise HelloUnreadableError("bytes follow the ClientHello in its record")
            if len(message) == wanted:
                return _hello_of(bytes(message[4:]))
        return None

    def _fragment_size(self) -> int | None:
        """Return the size of the next record's fragment; None until all of it has arrived."""
        raw, at = self.raw, self._at
        if len(raw) - at < 5:  # noqa: PLR2004 - a record header
            return None
        size = int.from_bytes(raw[at + 3 : at + 5])
        if raw[at] != HANDSHAKE or raw[at + 1] != 3 or not 0 < size <= _RECORD_LIMIT:  # noqa: PLR2004
            raise HelloUnreadableError("not a TLS handshake record")
        return size if len(raw) - at - 5 >= size else None


def skip_change_cipher_spec(data: bytes | bytearray) -> int | None:
    """Return the size of a leading compatibility record (RFC 8446 appendix D.4), 0 without one.

    None while `data` is too short. Only that exact record counts: a longer one could contain bytes
    that only the server reads.
    """
    size = len(_CHANGE_CIPHER_SPEC)
    if data[:size] != _CHANGE_CIPHER_SPEC[: len(data)]:
        return 0
    return size if len(data) >= size else None


def is_retry_request(data: bytes | bytearray) -> bool | None:
    """Return whether a server's first bytes are a HelloRetryRequest; None while too short."""
    if data[:1] != bytes((HANDSHAKE,)):
        return False
    if len(data) < _RANDOM_AT + len(_RETRY_RANDOM):
        return None
    return bytes(data[_RANDOM_AT : _RANDOM_AT + len(_RETRY_RANDOM)]) == _RETRY_RANDOM


def _hello_of(body: bytes) -> ClientHello:
    try:
        return _parse(body)
    except (struct.error, IndexError) as error:
        raise HelloUnreadableError("the ClientHello is cut short") from error


def _parse(body: bytes) -> ClientHello:
    at = 2 + 32  # legacy_version, random
    at += 1 + body[at]  # legacy_session_id
    at += 2 + _u16(body, at)  # cipher_suites
    at += 1 + body[at]  # legacy_compression_methods
    if at == len(body):  # a hello of TLS 1.2 may end here, without extensions
        return ClientHello(None, (), encrypted=False)
    if at + 2 + _u16(body, at) != len(body):
        raise HelloUnreadableError("the ClientHello's extensions do not end where it ends")
    extensions = _extensions(body, at + 2)
    return ClientHello(
        _sni(extensions.get(_SERVER_NAME)),
        _alpn(extensions.get(_ALPN)),
        encrypted=_ENCRYPTED_CLIENT_HELLO in extensions,
    )


def _extensions(body: bytes, at: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while at < len(body):
        kind, size = struct.unpack_from("!HH", body, at)
        if kind in found:  # RFC 8446 section 4.2: at most one of each type
            raise HelloUnreadableError("the ClientHello repeats an extension")
        if at + 4 + size > len(body):
            raise HelloUnreadableError("an extension of the ClientHello is cut short")
        found[kind] = body[at + 4 : at + 4 + size]
        at += 4 + size
    return found


def _sni(data: bytes | None) -> str | None:
    """Read the one host name of RFC 6066 section 3; two could be read differently."""
    if data is None:
        return None
    size = _u16(data, 3)
    if _u16(data, 0) != len(data) - 2 or data[2] != 0 or size != len(data) - 5 or not size:
        raise HelloUnreadableError("the server name extension does not hold one host name")
    try:
        return data[5:].decode("ascii")
    except UnicodeDecodeError as error:
        raise HelloUnreadableError("the server name is not ASCII") from error


def _alpn(data: bytes | None) -> tuple[bytes, ...]:
    if data is None:
        return ()
    if _u16(data, 0) != len(data) - 2:
        raise HelloUnreadableError("the protocol list does not end where its extension ends")
    names: list[bytes] = []
    at = 2
    while at < len(data):
        size = data[at]
        if not size or at + 1 + size > len(data):
            raise HelloUnreadableError("a protocol name is empty or cut short")
        names.append(data[at + 1 : at + 1 + size])
        at += 1 + size
    return tuple(names)


def _u16(data: bytes, at: int) -> int:
    number: int = struct.unpack_from("!H", data, at)[0]
    return number
