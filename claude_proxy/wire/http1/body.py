"""HTTP/1.1 bodies: fixed length, chunked, or until the peer closes (RFC 9112 section 6); sans-io.

Agreement: the head alone determines where a body ends, and chunked framing that two parsers could
read differently is refused; of a response only white space in a chunk line and what
`response_fields` repairs in trailers is taken. Content is not buffered, except for an incomplete
chunk line or trailer section.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.wire.http1.head import (
    BadMessage,
    Fields,
    RequestHead,
    ResponseHead,
    read_fields,
    refuse_invalid_bytes,
)
from claude_proxy.wire.http1.response import is_bodiless
from claude_proxy.wire.http1.response_fields import read_response_fields

# Bytes of a chunk size and its extensions. Attackers made Node and Go read gigabytes of extensions
# (CVE-2024-22019, CVE-2023-39326).
MAX_CHUNK_LINE: Final = 512
MAX_TRAILERS: Final = 8192

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
# RFC 9112 section 7.1.1, without the optional "bad whitespace".
_CHUNK_LINE: Final = lazy_pattern(
    rb"([0-9A-Fa-f]{1,16})(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*+\r\n"
)
_CHUNK_LINE_START: Final = lazy_pattern(rb"[0-9A-Fa-f]{1,16}(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r?")
# The same with the "bad whitespace" that a recipient must take (RFC 9110 section 5.6.3); old
# servers also pad the size with blanks.
_SPACED_CHUNK_LINE: Final = lazy_pattern(
    rb"([0-9A-Fa-f]{1,16})[ \t]*+(?:;[ \t]*+"
    + _TOKEN
    + rb"[ \t]*+(?:=[ \t]*+(?:"
    + _TOKEN
    + rb"|"
    + _QUOTED
    + rb")[ \t]*+)?)*+\r\n"
)
_SPACED_CHUNK_LINE_START: Final = lazy_pattern(
    rb"[0-9A-Fa-f]{1,16}[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r?"
)

# RFC 9110 section 6.5.1: fields for framing, routing, authentication or content format are not
# allowed in trailers. A recipient that merges trailers into the head would act on fields that were
# not judged.
NOT_IN_TRAILERS: Final = frozenset(
    {
        b"authorization",
        b"cache-control",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"expect",
        b"host",
        b"keep-alive",
        b"max-forwards",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"range",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"www-authenticate",
        b"x-api-key",
        b"x-http-method-override",
    }
)

_NO_TRAILERS: Final = b"\r\n"  # what an empty trailer section is
LAST_CHUNK: Final = b"0\r\n\r\n"


class Body(ABC):
    """Parser of one message body; the bytes after its end belong to the next message."""

    __slots__ = ("trailers",)

    def __init__(self) -> None:
        self.trailers: Fields = []

    @abstractmethod
    def feed(self, data: bytes) -> tuple[bytes, bool, bytes]:
        """Parse `data`; return its content, whether the body is complete, and the unused bytes.

        BadMessage if the framing is malformed.
        """

    def eof(self) -> bool:
        """Return whether the body is complete if the peer closes the connection now."""
        return False


class LengthBody(Body):
    """A body of Content-Length bytes (RFC 9112 section 6.2)."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        super().__init__()
        self._left = length

    def feed(self, data: bytes) -> tuple[bytes, bool, bytes]:
        """Return the bytes as content until the length is reached."""
        size = len(data)
        if size < self._left:
            self._left -= size
            return data, False, b""
        cut = self._left
        self._left = 0
        return (data, True, b"") if cut == size else (data[:cut], True, data[cut:])


class CloseBody(Body):
    """A response body that ends when the server closes the connection (RFC 9112 section 6.3)."""

    __slots__ = ()

    def feed(self, data: bytes) -> tuple[bytes, bool, bytes]:
        """Return all bytes as content."""
        return data, False, b""

    def eof(self) -> bool:
        """Return True: closing the connection is how this body ends."""
        return True


class ChunkedBody(Body):
    """A request's chunked body (RFC 9112 section 7.1); `trailers` is set when it is complete."""

    __slots__ = ("_begun", "_done", "_left", "_step")

    _status: ClassVar[int] = 400  # for BadMessage
    _line: ClassVar[re.Pattern[bytes]] = _CHUNK_LINE
    _line_start: ClassVar[re.Pattern[bytes]] = _CHUNK_LINE_START

    def __init__(self) -> None:
        super().__init__()
        self._left = 0  # bytes missing from the current chunk
        self._begun = b""  # start of a line or of the trailers that is still incomplete
        # What comes after the chunk. A bound method would create a reference cycle.
        self._step: Callable[[ChunkedBody, bytes, int], int] = ChunkedBody._read_size
        self._done = False

    def feed(self, data: bytes) -> tuple[bytes, bool, bytes]:
        """Return the content of all chunks in `data`, joined."""
        content: list[bytes] = []
        position = 0
        size = len(data)
        while position < size:
            if self._left:
                piece = data[position : position + self._left]
                content.append(piece)
                self._left -= len(piece)
                position += len(piece)
                continue
            position = self._step(self, data, position)
            if self._done:
                return b"".join(content), True, data[position:]
        return b"".join(content), self._done, b""

    def _read_size(self, data: bytes, position: int) -> int:
        if not self._begun:
            # A whole line, as nearly always: it needs no copy, and ends at the first LF.
            match = self._line.match(data, position, position + MAX_CHUNK_LINE)
            if match is not None:
                return self._begin_chunk(match[1], match.end())
        end = data.find(b"\n", position, position + MAX_CHUNK_LINE) + 1
        line = self._begun + data[position : end or position + MAX_CHUNK_LINE]
        if len(line) + (not end) > MAX_CHUNK_LINE:
            raise BadMessage(self._status, "a chunk's first line is too long")
        if not end:
            if not self._line_start.fullmatch(line):
                raise BadMessage(self._status, "a chunk's first line is malformed")
            self._begun = line
            return len(data)
        match = self._line.fullmatch(line)
        if match is None:
            raise BadMessage(self._status, "a chunk's first line is malformed")
        return self._begin_chunk(match[1], end)

    def _begin_chunk(self, size: bytes, end: int) -> int:
        self._left = int(size, 16)
        if self._left:
            self._begun = b""
            self._step = ChunkedBody._read_end
        else:
            self._begun = _NO_TRAILERS  # so that an empty section also ends in CRLF CRLF
            self._step = ChunkedBody._read_trailers
        return end

    def _read_end(self, data: bytes, position: int) -> int:
        # RFC 9112 section 7.1: exactly CRLF. A parser that skips any two bytes here can be
        # desynchronised (request smuggling).
        if not self._begun and data.startswith(b"\r\n", position):
            self._step = ChunkedBody._read_size
            return position + 2
        end = position + 2 - len(self._begun)
        line = self._begun + data[position:end]
        if line == b"\r\n":
            self._begun = b""
            self._step = ChunkedBody._read_size
            return end
        if line != b"\r":
            raise BadMessage(self._status, "a chunk's data is not followed by CRLF")
        self._begun = line
        return len(data)

    def _read_trailers(self, data: bytes, position: int) -> int:
        known = len(self._begun)
        if known == len(_NO_TRAILERS) and data.startswith(_NO_TRAILERS, position):
            self._step = ChunkedBody._stay
            self._done = True
            return position + known
        block = self._begun + data[position : position + MAX_TRAILERS - known]
        end = block.find(b"\r\n\r\n")
        if end < 0:
            refuse_invalid_bytes(block, self._status)
            if len(block) >= MAX_TRAILERS:
                raise BadMessage(self._status, "the trailer section is too long")
            self._begun = block
            return len(data)
        self.trailers = self._trailers_of(block[2 : end + 2])
        self._step = ChunkedBody._stay
        self._done = True
        return position + end + 4 - known

    def _trailers_of(self, block: bytes) -> Fields:
        fields = read_fields(block)
        if any(_is_for_the_head(name) for name, _ in fields):
            raise BadMessage(400, "a field in the trailer section is only allowed in the head")
        return fields

    def _stay(self, _data: bytes, position: int) -> int:
        return position


class ResponseChunkedBody(ChunkedBody):
    """A response's chunked body; what RFC 9112 lets a recipient repair is repaired.

    Fields that are not allowed in trailers are left out of `trailers` (RFC 9110 section 6.5.1).
    """

    __slots__ = ()

    _status = 502
    _line = _SPACED_CHUNK_LINE
    _line_start = _SPACED_CHUNK_LINE_START

    def _trailers_of(self, block: bytes) -> Fields:
        refuse_invalid_bytes(block, self._status)  # RFC 9112 section 2.2 speaks of heads alone
        fields = read_response_fields(block)
        return [field for field in fields if not _is_for_the_head(field[0])]


def _is_for_the_head(name: bytes) -> bool:
    return name.lower().replace(b"_", b"-") in NOT_IN_TRAILERS


def body_of_request(head: RequestHead) -> Body | None:
    """Return the parser of a request's body; None if it has none (RFC 9112 section 6.3)."""
    if head.chunked:
        return ChunkedBody()
    return LengthBody(head.length) if head.length else None


def body_of_response(head: ResponseHead, method: str) -> Body | None:
    """Return the parser of a response's body; None if it has none (RFC 9112 section 6.3).

    `method` is that of the request.
    """
    if is_bodiless(head.status, method) or head.length == 0:
        return None
    if head.chunked:
        return ResponseChunkedBody()
    return CloseBody() if head.length is None else LengthBody(head.length)


def chunk(data: bytes) -> bytes:
    """Return `data` as one chunk; b"" for no data, because an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def emit_trailers(trailers: Fields, *, drop: frozenset[bytes] = frozenset()) -> bytes:
    """Return the last chunk and the trailer fields, without those in `drop` (lower-case names)."""
    lines = [
        b"%b: %b\r\n" % field
        for field in trailers
        if field[0].lower().replace(b"_", b"-") not in drop
    ]
    return b"0\r\n" + b"".join(lines) + b"\r\n"
