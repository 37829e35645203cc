"""HTTP/1.1 heads: the fields and parsing rules that requests and responses share; sans-io.

Agreement: a message that two parsers could split or frame differently is refused, because the
policy would judge one reading and the upstream act on the other. So the rules are stricter than
RFC 9110 section 5 and RFC 9112 section 5 require, and nothing is repaired. How the bytes are split
over reads makes no difference.
"""

from enum import Enum
from typing import Final

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern

# RFC 9112 sets no limit; servers do (Apache 100, Node about 2,000). Real requests have about 30.
MAX_FIELDS: Final = 200

TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
# A port has five digits at most; `Authority` checks that it is below 65,536.
AUTHORITY: Final = rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\])"
HOST: Final = lazy_pattern(AUTHORITY + rb"(?::[0-9]{1,5})?")
OPTION: Final = lazy_pattern(TOKEN + rb"+")

# RFC 9112 section 5: one field per line, no space before the colon, no folding. A match starts at
# the start of a line and contains at least one LF, so if there are as many matches as LFs, each
# line is one field. Control bytes are searched separately, and only values that end in white space
# need the second pattern: together that is twice as fast as one exact pattern.
FIELD: Final = lazy_pattern(rb"(?m:^)(" + TOKEN + rb"++):[ \t]*+([^\r]*+)(?<![ \t])\r\n")
_FIELD_UNTRIMMED: Final = lazy_pattern(rb"(?m:^)(" + TOKEN + rb"++):[ \t]*+([^\r]*+)\r\n")
# RFC 9110 section 5.5: NUL, CR and LF are invalid and dangerous, other control bytes just invalid.
CONTROLS: Final = bytes([*range(9), *range(11, 13), *range(14, 32), 127])
_DIGITS: Final = lazy_pattern(rb"[0-9]{1,19}")
_PROTOCOL: Final = lazy_pattern(TOKEN + rb"+(?:/" + TOKEN + rb"+)?")

# The fields that determine routing, framing, and what happens to the connection.
_FRAMING: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect"}
)


class BadMessage(ValueError):  # noqa: N818 - the message is wrong, not the program
    """A message that is refused: the status code to send, and why.

    `text` never quotes the message.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


Fields = list[tuple[bytes, bytes]]


class TargetForm(Enum):
    """The four forms of a request target (RFC 9112 section 3.2)."""

    ORIGIN = "origin"
    ABSOLUTE = "absolute"
    AUTHORITY = "authority"
    ASTERISK = "asterisk"


@dataclass(slots=True, repr=False)
class _Head:
    """What requests and responses share; the repr shows no field, as fields hold credentials."""

    minor: int
    fields: Fields
    length: int | None = None
    chunked: bool = False
    keep_alive: bool = False
    options: frozenset[bytes] = frozenset()  # the connection options, in lower case
    upgrade: tuple[str, ...] = ()

    def get(self, name: bytes) -> bytes | None:
        """Return the value of the first field `name` (case-insensitive); None if there is none."""
        wanted = name.lower()
        for known, value in self.fields:
            if known.lower() == wanted:
                return value
        return None

    def get_all(self, name: bytes) -> list[bytes]:
        """Return the values of all fields `name` (case-insensitive), in order."""
        wanted = name.lower()
        return [value for known, value in self.fields if known.lower() == wanted]


@dataclass(slots=True, repr=False, kw_only=True)
class RequestHead(_Head):
    """A request line and its fields, and what they mean for routing, framing and connection."""

    method: str
    target: str
    form: TargetForm
    host: bytes | None = None
    expects_continue: bool = False
    scheme: str = ""  # absolute-form only, in lower case
    authority: str = ""  # absolute-form and authority-form, as sent
    origin_target: str = ""  # the target to send upstream; "" in authority-form

    @property
    def path(self) -> str:
        """The path as sent, without the query; "*" in asterisk-form, "" in authority-form."""
        return self.origin_target.partition("?")[0]

    def __repr__(self) -> str:
        return f"<RequestHead {self.method} {self.form.value}-form, {len(self.fields)} fields>"


@dataclass(slots=True, repr=False, kw_only=True)
class ResponseHead(_Head):
    """A status line and its fields, and what they mean for framing and connection."""

    status: int
    phrase: bytes = b""

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status}, {len(self.fields)} fields>"


def read_fields(block: bytes) -> Fields:
    """Parse a request's field lines, each ending in CRLF, into names as sent and trimmed values.

    BadMessage if they are malformed.
    """
    lines = block.count(b"\n")
    if lines > MAX_FIELDS:
        raise BadMessage(431, "there are too many fields")
    if len(block.translate(None, CONTROLS)) != len(block):
        raise BadMessage(400, "there is a control byte in a field")
    fields: Fields = FIELD.findall(block)
    if len(fields) != lines:
        fields = [(name, _trimmed(name, value)) for name, value in _FIELD_UNTRIMMED.findall(block)]
        if len(fields) != lines:
            raise BadMessage(400, "a field line is malformed")
    return fields


def _trimmed(name: bytes, value: bytes) -> bytes:
    # Node's parser (llhttp) does not read "chunked " as "chunked". So the space stays, and the
    # value is refused as an unknown coding.
    return value if name.lower() == b"transfer-encoding" else value.rstrip(b" \t")


def refuse_invalid_bytes(part: bytes, status: int) -> None:
    """Raise BadMessage if an incomplete head can no longer become valid: bare CR or LF, or NUL."""
    lines = part.count(b"\r\n")
    if part.count(b"\n") != lines:
        raise BadMessage(status, "a line ends in a bare LF")
    if part.count(b"\r") - part.endswith(b"\r") != lines:
        raise BadMessage(status, "there is a bare CR")
    if b"\x00" in part:
        raise BadMessage(status, "there is a NUL byte")


def framing_fields(fields: Fields) -> dict[bytes, list[bytes]]:
    """Return the values that routing, framing and connection depend on, by lower-case name."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        known = name.lower()
        if known in _FRAMING:
            values.setdefault(known, []).append(value)
    return values


def length_of(value: bytes, status: int) -> int:
    """Parse a Content-Length, which is digits only (RFC 9110 section 8.6)."""
    if not _DIGITS.fullmatch(value):
        raise BadMessage(status, "the Content-Length field is malformed")
    return int(value)


def items_of(values: list[bytes]) -> list[bytes]:
    """Return the items of comma-separated lists in lower case, without empty ones.

    RFC 9110 section 5.6.1 has recipients ignore empty items.
    """
    items = [item.strip(b" \t").lower() for value in values for item in value.split(b",")]
    return [item for item in items if item]


def protocols_of(values: list[bytes], status: int) -> tuple[str, ...]:
    """Return the protocols that Upgrade fields name, in lower case (RFC 9110 section 7.8)."""
    protocols = items_of(values)
    if not all(map(_PROTOCOL.fullmatch, protocols)):
        raise BadMessage(status, "the Upgrade field is malformed")
    return tuple(protocol.decode("ascii") for protocol in protocols)
