"""Usage meter: reads the token usage that a response of the Messages API reports.

Law kept: metering changes nothing. Content is forwarded at once and unchanged, and a response that
cannot be read is never aborted. Memory is bounded, whatever the upstream sends. Where a ceiling
counts, what a response did not report is estimated upward (fail closed).
"""

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from claude_proxy.events import Usage
from claude_proxy.policy.request import RawField

# Longest line of a stream: the events with the usage are a few hundred bytes long.
_LINE_BYTES = 256 * 1024
# Longest JSON response: the longest that a model gives is about a megabyte.
_BODY_BYTES = 4 * 1024 * 1024
# Most bytes decompressed from a response: at a time, and in total.
_PIECE_BYTES = 64 * 1024
_UNPACKED_BYTES = 64 * 1024 * 1024
_MODEL_CHARACTERS = 128
_USAGE = b'"usage"'
_COUNTS = range(1 << 53)
# A piece of text is in an event of its own: `event: content_block_delta`, `data: {"type":...}`.
_EVENT = b"data:"
_FRAME_BYTES = 100  # a little less than the shortest
# English has about four bytes a token; text that compresses badly, such as Base64, two.
_TOKEN_BYTES = 2
_END_BYTES = 1024  # of a stream after its usage: a message_stop, and pings
_ERRORS = 400
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_INTERIM = range(100, 200)
_ACCEPT = b"accept-encoding"
_CODINGS = frozenset({b"identity", b"gzip", b"x-gzip", b"deflate"})  # supported by `_unpacking`


class UsageMeter:
    """A ResponseInspector that changes nothing; `usage` is what it has read so far."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._unpack: Callable[[bytes], Iterator[bytes]] | None = None
        self._reader: _EventStream | _JsonBody | None = None
        self._status: int | None = None  # of the final head
        self._passed = _Passed()
        self._is_stream = False
        # After how many bytes the usage of all before them was reported; None: it was not.
        self._reported_at: int | None = None

    def head(self, status: int, fields: Sequence[RawField]) -> None:
        """Note how the response is encoded; only the first final head counts."""
        if self._status is not None or status in _INTERIM:
            return
        self._status = status
        self._unpack = _unpacking(_value(fields, b"content-encoding"))
        match _value(fields, b"content-type").partition(b";")[0].strip():
            case b"text/event-stream":
                self._is_stream = True
                self._reader = _EventStream()
            case b"application/json":
                self._reader = _JsonBody()

    def feed(self, data: bytes) -> bytes:
        """Read `data`, and return it unchanged."""
        reader = self._reader
        if reader is None or self._unpack is None:
            self._passed.add(data)
            return data
        try:
            for piece in self._unpack(data):
                self._passed.add(piece)
                reader.feed(piece)
        except (zlib.error, _TooLongError):
            self._reader = None
        else:
            if reader.is_complete and reader.usage is not self.usage:
                self._reported_at = self._passed.bytes
            self.usage = reader.usage
        return data

    def finish(self) -> bytes:
        """Read a JSON response, which is complete now; nothing was held back."""
        if isinstance(self._reader, _JsonBody):
            self.usage = usage_of(bytes(self._reader.content))
            self._reported_at = None if self.usage is None else self._passed.bytes
            self._reader = None
        return b""

    def settled(self, reserved: Usage) -> Usage | None:
        """Return what a request that was sent used, which had `reserved` the most it could use.

        The usage is what was reported at the end of the response, if it came to that. Otherwise it
        is estimated upward: the provider counts what it made, even if nobody was left to read it.
        """
        if self._status is None:
            return replace(reserved, model="")
        reported_at = self._reported_at
        if reported_at is not None and self._passed.bytes - reported_at <= _END_BYTES:
            return self.usage
        if self._status >= _ERRORS:
            return None
        known = self.usage or replace(reserved, model="", tokens_out=0)
        # Without a stream the whole answer was made before its first byte came.
        least = 0 if self._is_stream else reserved.tokens_out
        return replace(known, tokens_out=max(known.tokens_out, least, self._passed.tokens))


def readable_encodings(fields: Sequence[RawField]) -> bytes | None:
    """Return an Accept-Encoding whose codings the meter can read; None: no change is needed."""
    offered = [
        coding.strip(b" \t")
        for name, value in fields
        if name.lower() == _ACCEPT
        for coding in value.split(b",")
    ]
    kept = [coding for coding in offered if coding.partition(b";")[0].strip().lower() in _CODINGS]
    return None if kept == offered else b", ".join(kept) or b"identity"


def usage_of(answer: bytes) -> Usage | None:
    """Return the usage that a complete JSON response reports, if it does."""
    return _added(None, _read(answer))


class _Passed:
    """How many tokens the content that went by was at most, as far as its length shows."""

    def __init__(self) -> None:
        self.bytes = self._events = 0

    def add(self, data: bytes) -> None:
        """Count a piece."""
        self.bytes += len(data)
        self._events += data.count(_EVENT)

    @property
    def tokens(self) -> int:
        """At least one for each event, and one for every two bytes beside the events' frames."""
        text = max(0, self.bytes - _FRAME_BYTES * self._events)
        return max(self._events, -(-text // _TOKEN_BYTES))


class _TooLongError(ValueError):
    """A response is longer than the limits."""


class _JsonBody:
    """A JSON response; read at its end."""

    usage = None
    is_complete = False

    def __init__(self) -> None:
        self.content = bytearray()

    def feed(self, data: bytes) -> None:
        self.content += data
        if len(self.content) > _BODY_BYTES:
            raise _TooLongError


class _EventStream:
    """A stream of server-sent events; those with the usage are read as they arrive."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.is_complete = False
        self._line = bytearray()
        self._is_skipping = False

    def feed(self, data: bytes) -> None:
        first, is_ended, others = data.partition(b"\n")
        self._take(first)
        if is_ended:
            self._end_line()
            whole, _, last = others.rpartition(b"\n")
            for line in _usage_lines(whole):
                self._read_line(line)
            self._take(last)

    def _take(self, data: bytes) -> None:
        if len(self._line) + len(data) > _LINE_BYTES:
            self._is_skipping = True
            self._line.clear()
        if not self._is_skipping:
            self._line += data

    def _end_line(self) -> None:
        line = bytes(self._line)
        self._line.clear()
        self._is_skipping = False
        if _USAGE in line:
            self._read_line(line)

    def _read_line(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            event = _read(line.removeprefix(b"data:"))
            self.usage = _usage_after(self.usage, event)
            if _is_last(event):
                self.is_complete = True


def _usage_lines(text: bytes) -> Iterator[bytes]:
    """Yield the lines that may contain the usage; the others are not parsed."""
    at = text.find(_USAGE)
    while at >= 0:
        start, end = text.rfind(b"\n", 0, at) + 1, text.find(b"\n", at)
        yield text[start:] if end < 0 else text[start:end]
        at = -1 if end < 0 else text.find(_USAGE, end)


def _usage_after(usage: Usage | None, event: Any) -> Usage | None:
    """Return the usage after `event`: a later number replaces an earlier one."""
    match event:
        case {"type": "message_start", "message": dict(message)}:
            return _added(usage, message)
        case {"type": "message_delta"}:
            return _added(usage, event)
        case _:
            return usage


def _is_last(event: Any) -> bool:
    """Return whether `event` reports the usage of the whole response."""
    match event:
        case {"type": "message_delta", "usage": {"output_tokens": int()}}:
            return True
        case _:
            return False


def _added(usage: Usage | None, holder: Any) -> Usage | None:
    if not isinstance(holder, dict) or not isinstance(reported := holder.get("usage"), dict):
        return usage
    before = usage or Usage()
    model = holder.get("model")
    return replace(
        before,
        model=model[:_MODEL_CHARACTERS] if isinstance(model, str) else before.model,
        tokens_in=_count(reported, "input_tokens", before.tokens_in),
        tokens_out=_count(reported, "output_tokens", before.tokens_out),
        cache_written=_count(reported, "cache_creation_input_tokens", before.cache_written),
        cache_read=_count(reported, "cache_read_input_tokens", before.cache_read),
    )


def _count(reported: dict[str, Any], name: str, before: int) -> int:
    number = reported.get(name)
    return number if type(number) is int and number in _COUNTS else before


def _read(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _value(fields: Sequence[RawField], name: bytes) -> bytes:
    values = [value.strip().lower() for field, value in fields if field.lower() == name]
    return b", ".join(values)


def _unpacking(coding: bytes) -> Callable[[bytes], Iterator[bytes]] | None:
    """Return a decoder of the content in pieces; None if the coding is unknown."""
    match coding:
        case b"" | b"identity":
            return lambda data: iter((data,))
        case b"gzip" | b"x-gzip" | b"deflate":
            return _Unpacker().unpack
        case _:
            return None


class _Unpacker:
    """Decodes gzip, zlib, and the raw form (RFC 1951) that some servers send as "deflate"."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._is_fresh = True
        self._room = _UNPACKED_BYTES

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Yield the content of `data`, in pieces of a bounded size."""
        more = bool(data)
        while more:
            piece = self._next(data)
            self._room -= len(piece)
            if self._room < 0:
                raise _TooLongError
            if piece:
                yield piece
            if self._zlib.eof:
                # A member of a gzip file has ended; there may be another.
                data = self._zlib.unused_data
                self._zlib = zlib.decompressobj(_GZIP_OR_ZLIB)
                more = bool(data)
            else:
                data = self._zlib.unconsumed_tail
                # A full piece may have left content behind, although all of `data` is read.
                more = bool(data) or len(piece) == _PIECE_BYTES

    def _next(self, data: bytes) -> bytes:
        is_first, self._is_fresh = self._is_fresh, False
        try:
            return self._zlib.decompress(data, _PIECE_BYTES)
        except zlib.error:
            if not is_first:
                raise
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
            return self._zlib.decompress(data, _PIECE_BYTES)
