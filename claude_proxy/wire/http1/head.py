"""Holds what HTTP/1.1 heads are made of, requests' and answers' alike (RFC 9110 5, RFC 9112 5).

The law kept here is the fourth, agreement: a message that two readers could split or frame in
two ways is refused whole, because the policy would judge one reading and upstream act on the
other. So less is taken than the RFCs let a recipient take, and nothing is repaired.
Pure: bytes in, a head or `BadMessage` out; the same bytes in any number of pieces give the same.
"""

import re
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Final

# RFC 9112 sets no bound; servers do (Apache 100, Node about 2,000). Real requests have about 30.
MAX_FIELDS: Final = 200

TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
# A port is five digits at most; that it is below 65,536 is for `Authority` to say.
AUTHORITY: Final = rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\])"
HOST: Final = re.compile(AUTHORITY + rb"(?::[0-9]{1,5})?")
OPTION: Final = re.compile(TOKEN + rb"+")

# RFC 9112 5: one line a field, no space before the colon, nothing folded. A match begins at a
# line's beginning and holds at least one LF; so as many matches as LFs means that every line is
# matched and holds one. It is twice as fast as naming the control bytes, which are looked for
# apart, and as trimming: values with white space at their end take the second, slower pattern.
_FIELD: Final = re.compile(rb"(?m:^)(" + TOKEN + rb"++):[ \t]*+([^\r]*+)(?<![ \t])\r\n")
_FIELD_UNTRIMMED: Final = re.compile(rb"(?m:^)(" + TOKEN + rb"++):[ \t]*+([^\r]*+)\r\n")
# RFC 9110 5.5: NUL, CR and LF are invalid and dangerous, other control bytes merely invalid.
_CONTROLS: Final = bytes([*range(9), *range(11, 13), *range(14, 32), 127])
_DIGITS: Final = re.compile(rb"[0-9]{1,19}")
_PROTOCOL: Final = re.compile(TOKEN + rb"+(?:/" + TOKEN + rb"+)?")

# The fields that say how a message is framed and how its connection goes on.
_TELLING: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect"}
)


class BadMessage(ValueError):  # noqa: N818 - it is the message that is bad, not the program
    """A message that is refused: the status to answer with, and why, in our own words only."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


Fields = list[tuple[bytes, bytes]]


class TargetForm(Enum):
    """The four forms of a request target (RFC 9112 3.2)."""

    ORIGIN = "origin"
    ABSOLUTE = "absolute"
    AUTHORITY = "authority"
    ASTERISK = "asterisk"


@dataclass(slots=True, repr=False)
class _Head:
    """What both kinds of head have; no repr shows a field, since fields carry credentials."""

    minor: int
    fields: Fields
    length: int | None = None
    chunked: bool = False
    keep_alive: bool = False
    options: frozenset[bytes] = frozenset()  # what Connection lists, in lower case
    upgrade: tuple[str, ...] = ()

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of the field `name`, in any case."""
        wanted = name.lower()
        for known, value in self.fields:
            if known.lower() == wanted:
                return value
        return None

    def get_all(self, name: bytes) -> list[bytes]:
        """Return every value of the field `name`, in order."""
        wanted = name.lower()
        return [value for known, value in self.fields if known.lower() == wanted]


@dataclass(slots=True, repr=False, kw_only=True)
class RequestHead(_Head):
    """A request's line and fields, with what they mean for framing and connection."""

    method: str
    target: str
    form: TargetForm
    host: bytes | None = None
    expects_continue: bool = False
    scheme: str = ""  # absolute-form only, in lower case
    authority: str = ""  # absolute-form and authority-form, as sent
    origin_target: str = ""  # what to ask upstream for; "" in authority-form

    @property
    def path(self) -> str:
        """The path as sent, without the query; "*" in asterisk-form, "" in authority-form."""
        return self.origin_target.partition("?")[0]

    def __repr__(self) -> str:
        return f"<RequestHead {self.method} {self.form.value}-form, {len(self.fields)} fields>"


@dataclass(slots=True, repr=False, kw_only=True)
class ResponseHead(_Head):
    """An answer's status line and fields, with what they mean for framing and connection."""

    status: int
    phrase: bytes = b""

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status}, {len(self.fields)} fields>"


def read_fields(block: bytes, status: int) -> Fields:
    """Split lines of fields (each with its CRLF) into names as sent and trimmed values."""
    lines = block.count(b"\n")
    if lines > MAX_FIELDS:
        too_large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        status = too_large if status == HTTPStatus.BAD_REQUEST else status
        raise BadMessage(status, "there are too many fields")
    if len(block.translate(None, _CONTROLS)) != len(block):
        raise BadMessage(status, "there is a control byte in a field")
    fields: Fields = _FIELD.findall(block)
    if len(fields) != lines:
        fields = [(name, _trimmed(name, value)) for name, value in _FIELD_UNTRIMMED.findall(block)]
        if len(fields) != lines:
            raise BadMessage(status, "a field line is malformed")
    return fields


def _trimmed(name: bytes, value: bytes) -> bytes:
    # llhttp, which is Node's, takes "chunked " for another coding than "chunked"; so it stays as
    # it is, and is refused as a coding that is not known.
    return value if name.lower() == b"transfer-encoding" else value.rstrip(b" \t")


def refuse_garbage(part: bytes, status: int) -> None:
    """Refuse a head as soon as it holds what no head may, instead of waiting for its end."""
    lines = part.count(b"\r\n")
    if part.count(b"\n") != lines:
        raise BadMessage(status, "a line ends in a bare LF")
    if part.count(b"\r") - part.endswith(b"\r") != lines:
        raise BadMessage(status, "there is a bare CR")
    if b"\x00" in part:
        raise BadMessage(status, "there is a NUL byte")


def telling_fields(fields: Fields) -> dict[bytes, list[bytes]]:
    """Gather by lower-case name the values that framing and connection depend on."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        known = name.lower()
        if known in _TELLING:
            values.setdefault(known, []).append(value)
    return values


def length_of(value: bytes, status: int) -> int:
    """Read a Content-Length: digits alone (RFC 9110 8.6)."""
    if not _DIGITS.fullmatch(value):
        raise BadMessage(status, "the Content-Length field is malformed")
    return int(value)


def items_of(values: list[bytes]) -> list[bytes]:
    """Split comma-separated lists into lower-case items; empty ones are legal (RFC 9110 5.6.1)."""
    items = [item.strip(b" \t").lower() for value in values for item in value.split(b",")]
    return [item for item in items if item]


def protocols_of(values: list[bytes], status: int) -> tuple[str, ...]:
    """Read the protocols of Upgrade fields (RFC 9110 7.8)."""
    protocols = items_of(values)
    if not all(map(_PROTOCOL.fullmatch, protocols)):
        raise BadMessage(status, "the Upgrade field is malformed")
    return tuple(protocol.decode("ascii") for protocol in protocols)
