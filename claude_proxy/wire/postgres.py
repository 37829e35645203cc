"""PostgreSQL's protocol, version 3, up to the end of a login: parsers and messages; sans-io.

By "Frontend/Backend Protocol" in PostgreSQL's documentation. Agreement: a message has one reading
or is refused; a parameter that occurs twice, bytes after the end of a list, a length that is none
are refused. Errors never quote a message.
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import field
from enum import IntEnum
from typing import Final

from claude_proxy.deferred.data_classes import dataclass

_VERSION: Final = 196608  # 3.0
_MAJOR: Final = 3
_CANCEL: Final = 80877102
_SSL: Final = 80877103
_GSS: Final = 80877104
# PostgreSQL's own limits (pqcomm.h, auth.c).
LONGEST_STARTUP: Final = 10_000
LONGEST_PASSWORD: Final = 65_535
LONGEST_ANSWER: Final = 30_000  # of a server, before the login is over
_CANCEL_SIZE: Final = 16
_WORD: Final = struct.Struct("!I")
_HEAD: Final = struct.Struct("!cI")
_MOST_PARAMETERS: Final = 100

NO_ENCRYPTION: Final = b"N"  # the answer to a request for TLS or GSSAPI
OFFERS_TLS: Final = b"S"
SSL_REQUEST: Final = struct.pack("!II", 8, _SSL)
ASK_FOR_PASSWORD: Final = struct.pack("!cII", b"R", 8, 3)
AUTHENTICATED: Final = struct.pack("!cII", b"R", 8, 0)

AUTHENTICATION: Final = b"R"
ERROR: Final = b"E"
NOTICE: Final = b"N"
PASSWORD: Final = b"p"


class PostgresError(ValueError):
    """Bytes that are no message of the protocol, in the only reading that is accepted."""


class Demand(IntEnum):
    """What an authentication message of the server asks for."""

    NOTHING = 0
    CLEARTEXT = 3
    MD5 = 5
    SASL = 10
    SASL_CONTINUE = 11
    SASL_FINAL = 12


class EncryptionRequest:
    """The client asks for TLS or for GSSAPI, before anything else."""

    __slots__ = ("is_tls",)

    def __init__(self, *, is_tls: bool) -> None:
        self.is_tls = is_tls


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """The client asks, on a connection of its own, that a running query be cancelled."""

    message: bytes = field(repr=False)  # its key is a secret of the other session's


@dataclass(frozen=True, slots=True)
class Startup:
    """The client's first message: who logs in to which database, and settings of the session."""

    parameters: Mapping[str, str]
    minor: int = 0  # of the protocol's version
    extensions: tuple[str, ...] = ()  # of the protocol, which nobody here knows

    @property
    def user(self) -> str:
        """The role that logs in."""
        return self.parameters["user"]

    @property
    def database(self) -> str:
        """The database, which is the role's name where none is given."""
        return self.parameters.get("database") or self.user

    @property
    def replicates(self) -> bool:
        """Whether the session would be one of replication, in any spelling of no but the usual."""
        return self.parameters.get("replication", "false").lower() not in {
            *("false", "off", "no", "0")
        }


def read_startup(data: bytearray) -> EncryptionRequest | CancelRequest | Startup | None:
    """Take the first message of a client out of `data`; None while it is not complete.

    PostgresError.
    """
    if len(data) < _WORD.size:
        if data and data[0] != 0:
            raise PostgresError("the first bytes are not PostgreSQL's")
        return None
    (size,) = _WORD.unpack_from(data)
    if not 2 * _WORD.size <= size <= LONGEST_STARTUP:
        raise PostgresError("the first message has no possible length")
    if len(data) < size:
        return None
    message = bytes(data[:size])
    del data[:size]
    (code,) = _WORD.unpack_from(message, _WORD.size)
    if code in {_SSL, _GSS}:
        if size != len(SSL_REQUEST):
            raise PostgresError("the request for encryption has no possible length")
        return EncryptionRequest(is_tls=code == _SSL)
    if code == _CANCEL:
        if size != _CANCEL_SIZE:
            raise PostgresError("the request to cancel has no possible length")
        return CancelRequest(message)
    if code >> 16 != _MAJOR:
        raise PostgresError("the protocol is not version 3 of PostgreSQL's")
    return _startup(message[2 * _WORD.size :], code & 0xFFFF)


def _startup(body: bytes, minor: int) -> Startup:
    *words, end, after = body.split(b"\0") if body.endswith(b"\0\0") else (b"x",) * 3
    if end or after or len(words) % 2 or len(words) > 2 * _MOST_PARAMETERS:
        raise PostgresError("the parameters of the session are malformed")
    found: dict[str, str] = {}
    extensions = []
    for name, value in zip(words[::2], words[1::2], strict=True):
        try:
            key, text = name.decode("utf-8"), value.decode("utf-8")
        except UnicodeDecodeError:
            raise PostgresError("a parameter of the session is not UTF-8") from None
        if not key or key in found or key in extensions:
            raise PostgresError("a parameter of the session has no name, or occurs twice")
        if key.startswith("_pq_."):
            extensions.append(key)
        else:
            found[key] = text
    if not found.get("user"):
        raise PostgresError("the session names no user")
    return Startup(found, minor, tuple(extensions))


def startup_message(parameters: Mapping[str, str]) -> bytes:
    """Return the first message of a session with these parameters."""
    words = [word for pair in parameters.items() for word in pair]
    body = b"".join(word.encode() + b"\0" for word in words) + b"\0"
    return struct.pack("!II", len(body) + 2 * _WORD.size, _VERSION) + body


def negotiated(startup: Startup) -> bytes:
    """Return the message that only version 3.0 without extensions is spoken; b"" if it was asked.

    It is NegotiateProtocolVersion.
    """
    if not startup.minor and not startup.extensions:
        return b""
    names = b"".join(name.encode() + b"\0" for name in startup.extensions)
    return message(b"v", struct.pack("!II", _VERSION, len(startup.extensions)) + names)


def read_message(data: bytearray, longest: int) -> tuple[bytes, bytes] | None:
    """Take one message out of `data`: its type and its body; None while it is not complete.

    PostgresError if it is longer than `longest`.
    """
    if len(data) < _HEAD.size:
        return None
    kind, size = _HEAD.unpack_from(data)
    if not _WORD.size <= size <= longest:
        raise PostgresError("a message has no possible length")
    end = 1 + size
    if len(data) < end:
        return None
    body = bytes(data[_HEAD.size : end])
    del data[:end]
    return kind, body


def password_of(body: bytes) -> bytes:
    """Return the password in a message of the client; PostgresError."""
    password, end, after = body.partition(b"\0")
    if not end or after:
        raise PostgresError("the password is malformed")
    return password


def demand_of(body: bytes) -> tuple[Demand, bytes]:
    """Return what an authentication message asks for, and its rest; PostgresError if unknown."""
    if len(body) < _WORD.size:
        raise PostgresError("the server's question for a login is malformed")
    (code,) = _WORD.unpack_from(body)
    try:
        demand = Demand(code)
    except ValueError:
        raise PostgresError("the server asks for a login of an unknown kind") from None
    rest = body[_WORD.size :]
    fixed = {Demand.NOTHING: 0, Demand.CLEARTEXT: 0, Demand.MD5: 4}
    if demand in fixed and len(rest) != fixed[demand]:
        raise PostgresError("the server's question for a login is malformed")
    return demand, rest


def mechanisms_in(rest: bytes) -> tuple[str, ...]:
    """Return the mechanisms that a server offers for SASL; PostgresError."""
    if not rest.endswith(b"\0\0") or not rest.isascii():
        raise PostgresError("the server's list of mechanisms is malformed")
    return tuple(rest[:-2].decode("ascii").split("\0"))


def sasl_initial(mechanism: str, first: bytes) -> bytes:
    """Return the client's first message of SASL."""
    return message(PASSWORD, mechanism.encode() + b"\0" + _WORD.pack(len(first)) + first)


def sasl_response(data: bytes) -> bytes:
    """Return a further message of SASL."""
    return message(PASSWORD, data)


def password_message(password: bytes) -> bytes:
    """Return the answer to a question for a password, in clear or hashed."""
    return message(PASSWORD, password + b"\0")


def md5_of(user: str, password: bytes, salt: bytes) -> bytes:
    """Return the answer to a question for a password hashed by MD5."""
    inner = hashlib.md5(password + user.encode(), usedforsecurity=False).hexdigest()
    outer = hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest()
    return b"md5" + outer.encode()


def fatal_error(code: str, text: str, hint: str = "") -> bytes:
    """Return an ErrorResponse that ends a session; `code` is an SQLSTATE."""
    fields = {b"S": "FATAL", b"V": "FATAL", b"C": code, b"M": text, b"H": hint}
    body = b"".join(name + value.encode() + b"\0" for name, value in fields.items() if value)
    return message(ERROR, body + b"\0")


def sqlstate_of(body: bytes) -> str:
    """Return the SQLSTATE of an error of the server's; "" if it has none."""
    found = (each[1:] for each in body.split(b"\0") if each[:1] == b"C")
    code = next(found, b"")
    return code.decode("ascii") if code.isalnum() and code.isascii() else ""


def message(kind: bytes, body: bytes) -> bytes:
    """Return a message as it is sent."""
    return _HEAD.pack(kind, len(body) + _WORD.size) + body
