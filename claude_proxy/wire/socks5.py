"""SOCKS5 handshake: parser of the client's messages, and the replies (RFC 1928, RFC 1929); sans-io.

Agreement: a request has one reading or is refused. Its host name is returned byte for byte, so
that only `Authority` interprets it: a NUL in a name once bypassed a filter that checked one
spelling while another was resolved. One message is read at a time; the bytes after the request
belong to the tunnel.
"""

import struct
from dataclasses import field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.wire.authority import text_of

VERSION: Final = 0x05
_LOGIN_VERSION: Final = 0x01  # RFC 1929 section 2
_IPV4, _NAME, _IPV6 = 0x01, 0x03, 0x04
_ADDRESS_SIZES: Final = {_IPV4: 4, _NAME: 0, _IPV6: 16}  # bytes; a name starts with its length


class SocksMethod(IntEnum):
    """Authentication methods (RFC 1928 section 3)."""

    NONE = 0x00
    PASSWORD = 0x02
    NO_ACCEPTABLE = 0xFF


class SocksCommand(IntEnum):
    """Commands of a request (RFC 1928 section 4)."""

    CONNECT = 0x01
    BIND = 0x02
    UDP_ASSOCIATE = 0x03


class SocksReply(IntEnum):
    """Reply codes to a request (RFC 1928 section 6)."""

    GRANTED = 0x00
    FAILED = 0x01
    DENIED = 0x02
    UNREACHABLE = 0x04
    REFUSED = 0x05
    COMMAND_NOT_SUPPORTED = 0x07
    ADDRESS_NOT_SUPPORTED = 0x08


class SocksError(ValueError):
    """Bytes that are not valid SOCKS5: the reply to send before closing, and why.

    `text` never quotes the client.
    """

    def __init__(self, answer: bytes, text: str) -> None:
        super().__init__(text)
        self.answer = answer  # bytes for the client
        self.text = text


@dataclass(frozen=True, slots=True)
class SocksLogin:
    """A user name and a password as sent; the repr shows neither."""

    user: bytes = field(repr=False)
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SocksRequest:
    """A client's request: the command and its target."""

    command: int  # a SocksCommand, or an unknown number
    host: bytes  # a name as sent, or an IP address in its canonical spelling
    port: int

    def shown(self) -> str:
        """Return the target as sent, for the audit log when it is not a valid `Authority`."""
        return f"{self.host.decode('latin-1')}:{self.port}"


def read_methods(buffer: bytearray) -> bytes | None:
    """Remove a greeting from the front of `buffer` and return the methods it offers.

    None while it is incomplete.
    """
    if buffer and buffer[0] != VERSION:
        raise SocksError(method_choice(SocksMethod.NO_ACCEPTABLE), "the greeting is not SOCKS5")
    if len(buffer) < 2 or len(buffer) < (size := 2 + buffer[1]):  # noqa: PLR2004
        return None
    return _take(buffer, size)[2:]


def read_login(buffer: bytearray) -> SocksLogin | None:
    """Remove a login from the front of `buffer` and return it; None while it is incomplete."""
    if buffer and buffer[0] != _LOGIN_VERSION:
        raise SocksError(login_reply(passed=False), "the login does not follow RFC 1929")
    if len(buffer) < 2:  # noqa: PLR2004
        return None
    at = 2 + buffer[1]
    if len(buffer) <= at or len(buffer) < (size := at + 1 + buffer[at]):
        return None
    message = _take(buffer, size)
    return SocksLogin(message[2:at], message[at + 1 :])


def read_request(buffer: bytearray) -> SocksRequest | None:
    """Remove a request from the front of `buffer` and return it; None while it is incomplete.

    SocksError as soon as the bytes cannot become a valid request.
    """
    if buffer and buffer[0] != VERSION:
        raise SocksError(reply(SocksReply.FAILED), "the request is not SOCKS5")
    if len(buffer) > 2 and buffer[2]:  # noqa: PLR2004 - RFC 1928: reserved, must be zero
        raise SocksError(reply(SocksReply.FAILED), "the reserved byte of the request is not zero")
    if len(buffer) > 3 and buffer[3] not in _ADDRESS_SIZES:  # noqa: PLR2004
        raise SocksError(reply(SocksReply.ADDRESS_NOT_SUPPORTED), "the address type is unknown")
    if len(buffer) < 5:  # noqa: PLR2004 - the shortest request is longer; byte 5 is a name's length
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
    """Return the reply to a greeting: the method that the client must use."""
    return bytes((VERSION, method))


def login_reply(*, passed: bool) -> bytes:
    """Return the reply to a login; the connection must be closed unless it `passed`."""
    return bytes((_LOGIN_VERSION, 0 if passed else 1))


def reply(code: SocksReply) -> bytes:
    """Return the reply to a request; its bound address is always 0.0.0.0:0."""
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
