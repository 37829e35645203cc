"""Reads what a SOCKS5 client says before its tunnel is open, and writes the answers; sans-io.

RFC 1928 and RFC 1929. Law kept: agreement. A request has one reading or is
refused, and its name is passed on byte for byte, for `Authority` alone to judge: a NUL in it once
let clients past a filter that compared one spelling and resolved another. Each message has a
bound, and no more than one message is taken at a time: what follows the request is the tunnel's.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from claude_proxy.wire.authority import text_of

VERSION: Final = 0x05
_LOGIN_VERSION: Final = 0x01  # RFC 1929 section 2
_IPV4, _NAME, _IPV6 = 0x01, 0x03, 0x04
_ADDRESS_SIZES: Final = {_IPV4: 4, _NAME: 0, _IPV6: 16}  # a name says its own


class SocksMethod(IntEnum):
    """How a client offers to prove who it is (RFC 1928 section 3)."""

    NONE = 0x00
    PASSWORD = 0x02
    NO_ACCEPTABLE = 0xFF


class SocksCommand(IntEnum):
    """What a client may ask for (RFC 1928 section 4)."""

    CONNECT = 0x01
    BIND = 0x02
    UDP_ASSOCIATE = 0x03


class SocksReply(IntEnum):
    """What a request comes to (RFC 1928 section 6)."""

    GRANTED = 0x00
    FAILED = 0x01
    DENIED = 0x02
    UNREACHABLE = 0x04
    REFUSED = 0x05
    COMMAND_NOT_SUPPORTED = 0x07
    ADDRESS_NOT_SUPPORTED = 0x08


class SocksError(ValueError):
    """Bytes that are no SOCKS5: what to answer before the end, and why, in our own words only."""

    def __init__(self, answer: bytes, text: str) -> None:
        super().__init__(text)
        self.answer = answer
        self.text = text


@dataclass(frozen=True, slots=True)
class SocksLogin:
    """A user and a password as sent; no repr shows them."""

    user: bytes = field(repr=False)
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SocksRequest:
    """What a client asks for."""

    command: int
    host: bytes  # a name as sent, or an address in its canonical spelling
    port: int

    def shown(self) -> str:
        """Return the target as it was sent, for the record of one that cannot be read."""
        return f"{self.host.decode('latin-1')}:{self.port}"


def read_methods(buffer: bytearray) -> bytes | None:
    """Take a greeting from the buffer's front and return the methods it offers; None: wait."""
    if buffer and buffer[0] != VERSION:
        raise SocksError(method_choice(SocksMethod.NO_ACCEPTABLE), "the greeting is not of SOCKS5")
    if len(buffer) < 2 or len(buffer) < (size := 2 + buffer[1]):  # noqa: PLR2004
        return None
    return _take(buffer, size)[2:]


def read_login(buffer: bytearray) -> SocksLogin | None:
    """Take a login from the buffer's front; None: wait."""
    if buffer and buffer[0] != _LOGIN_VERSION:
        raise SocksError(login_answer(passed=False), "the login is not of RFC 1929")
    if len(buffer) < 2:  # noqa: PLR2004
        return None
    at = 2 + buffer[1]
    if len(buffer) <= at or len(buffer) < (size := at + 1 + buffer[at]):
        return None
    message = _take(buffer, size)
    return SocksLogin(message[2:at], message[at + 1 :])


def read_request(buffer: bytearray) -> SocksRequest | None:
    """Take a request from the buffer's front; None: wait.

    What cannot become one any more is refused without waiting for its end.
    """
    if buffer and buffer[0] != VERSION:
        raise SocksError(reply(SocksReply.FAILED), "the request is not of SOCKS5")
    if len(buffer) > 2 and buffer[2]:  # noqa: PLR2004 - RFC 1928: reserved, must be zero
        raise SocksError(reply(SocksReply.FAILED), "the reserved byte of the request is not zero")
    if len(buffer) > 3 and buffer[3] not in _ADDRESS_SIZES:  # noqa: PLR2004
        raise SocksError(
            reply(SocksReply.ADDRESS_NOT_SUPPORTED), "the type of address is not known"
        )
    if len(buffer) < 5:  # noqa: PLR2004 - up to the length of a name; an address has more
        return None
    kind = buffer[3]
    start = 5 if kind == _NAME else 4
    end = start + (buffer[4] if kind == _NAME else _ADDRESS_SIZES[kind])
    if len(buffer) < end + 2:
        return None
    message = _take(buffer, end + 2)
    (port,) = struct.unpack_from("!H", message, end)
    return SocksRequest(message[1], _host_of(kind, message[start:end]), port)


def method_choice(method: SocksMethod) -> bytes:
    """Return the answer to a greeting."""
    return bytes((VERSION, method))


def login_answer(*, passed: bool) -> bytes:
    """Return the answer to a login; after any but success the connection is closed."""
    return bytes((_LOGIN_VERSION, 0 if passed else 1))


def reply(code: SocksReply) -> bytes:
    """Return the answer to a request; the address that is bound is nobody's business."""
    return bytes((VERSION, code, 0, _IPV4)) + bytes(4 + 2)


def _host_of(kind: int, data: bytes) -> bytes:
    if kind == _NAME:
        return data
    address = IPv4Address(data) if kind == _IPV4 else IPv6Address(data)
    return text_of(address).encode("ascii")


def _take(buffer: bytearray, size: int) -> bytes:
    message = bytes(buffer[:size])
    del buffer[:size]
    return message
