"""Reads from an answer of the Messages API what it has cost.

Law kept: what is counted is not changed. Content passes on at once and as it came; what cannot be
read is not counted, and never ends an answer. Memory is bounded whatever the upstream sends.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from claude_proxy.events import Usage
from claude_proxy.proxy.inspection.base import RawField

# Of one line of a stream: the events that tell the usage are a few hundred bytes long.
_LINE_BYTES = 256 * 1024
# Of an answer in one piece: the longest that a model gives is about a megabyte.
_ANSWER_BYTES = 4 * 1024 * 1024
# Of what comes out of a compressed answer, at once and in all.
_PIECE_BYTES = 64 * 1024
_UNPACKED_BYTES = 64 * 1024 * 1024
_MODEL_CHARACTERS = 128
_USAGE = b'"usage"'
_COUNTS = range(1 << 53)
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_INTERIM = range(100, 200)
_ACCEPT = b"accept-encoding"
_CODINGS = frozenset({b"identity", b"gzip", b"x-gzip", b"deflate"})  # as `_unpacking` has them


class UsageMeter:
    """A Watch that changes nothing; `usage` is what it has read so far."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._unpack: Callable[[bytes], Iterator[bytes]] | None = None
        self._reader: _Events | _Answer | None = None
        self._has_head = False

    def head(self, status: int, fields: Sequence[RawField]) -> None:
        """Take note of how the answer is written; only the first final head counts."""
        if self._has_head or status in _INTERIM:
            return
        self._has_head = True
        self._unpack = _unpacking(_value(fields, b"content-encoding"))
        match _value(fields, b"content-type").partition(b";")[0].strip():
            case b"text/event-stream":
                self._reader = _Events()
            case b"application/json":
                self._reader = _Answer()

    def feed(self, data: bytes) -> bytes:
        """Read on, and return `data` as it is."""
        if self._reader is not None and self._unpack is not None:
            try:
                for piece in self._unpack(data):
                    self._reader.feed(piece)
            except (zlib.error, _TooLongError):
                self._reader = None
            else:
                self.usage = self._reader.usage
        return data

    def finish(self) -> bytes:
        """Read what only the whole answer tells; nothing was kept."""
        if isinstance(self._reader, _Answer):
            self.usage = usage_of(bytes(self._reader.content))
            self._reader = None
        return b""


def readable_encodings(fields: Sequence[RawField]) -> bytes | None:
    """Return what Accept-Encoding is to say, so that the answer can be read; None: as it does."""
    offered = [
        coding.strip(b" \t")
        for name, value in fields
        if name.lower() == _ACCEPT
        for coding in value.split(b",")
    ]
    kept = [coding for coding in offered if coding.partition(b";")[0].strip().lower() in _CODINGS]
    return None if kept == offered else b", ".join(kept) or b"identity"


def usage_of(answer: bytes) -> Usage | None:
    """Return what a whole answer in JSON says that it has cost, if it does."""
    return _added(None, _read(answer))


class _TooLongError(ValueError):
    """More than an answer can be."""


class _Answer:
    """An answer in one piece; read at its end."""

    usage = None

    def __init__(self) -> None:
        self.content = bytearray()

    def feed(self, data: bytes) -> None:
        self.content += data
        if len(self.content) > _ANSWER_BYTES:
            raise _TooLongError


class _Events:
    """A stream of server-sent events; those that tell the usage are read as they come."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._line = bytearray()
        self._is_skipping = False

    def feed(self, data: bytes) -> None:
        first, is_ended, others = data.partition(b"\n")
        self._take(first)
        if is_ended:
            self._end_line()
            whole, _, last = others.rpartition(b"\n")
            for line in _telling_lines(whole):
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
            self.usage = _told(self.usage, _read(line.removeprefix(b"data:")))


def _telling_lines(text: bytes) -> Iterator[bytes]:
    """Yield the lines that may tell the usage; the others cost next to nothing."""
    at = text.find(_USAGE)
    while at >= 0:
        start, end = text.rfind(b"\n", 0, at) + 1, text.find(b"\n", at)
        yield text[start:] if end < 0 else text[start:end]
        at = -1 if end < 0 else text.find(_USAGE, end)


def _told(usage: Usage | None, event: Any) -> Usage | None:
    """Return the usage after `event`: what is told later stands for all that was before."""
    match event:
        case {"type": "message_start", "message": dict(message)}:
            return _added(usage, message)
        case {"type": "message_delta"}:
            return _added(usage, event)
        case _:
            return usage


def _added(usage: Usage | None, holder: Any) -> Usage | None:
    if not isinstance(holder, dict) or not isinstance(told := holder.get("usage"), dict):
        return usage
    before = usage or Usage()
    model = holder.get("model")
    return replace(
        before,
        model=model[:_MODEL_CHARACTERS] if isinstance(model, str) else before.model,
        tokens_in=_count(told, "input_tokens", before.tokens_in),
        tokens_out=_count(told, "output_tokens", before.tokens_out),
        cache_written=_count(told, "cache_creation_input_tokens", before.cache_written),
        cache_read=_count(told, "cache_read_input_tokens", before.cache_read),
    )


def _count(told: dict[str, Any], name: str, before: int) -> int:
    number = told.get(name)
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
    """Return what makes plain content of the answer's, a piece at a time; None: nothing does."""
    match coding:
        case b"" | b"identity":
            return lambda data: iter((data,))
        case b"gzip" | b"x-gzip" | b"deflate":
            return _Unpacker().unpack
        case _:
            return None


class _Unpacker:
    """Unpacks gzip, zlib, and what some send as "deflate": its bare form."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._is_fresh = True
        self._room = _UNPACKED_BYTES

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` brings, in pieces of a bounded size."""
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
                # A full piece may have left some behind, although all of `data` is read.
                more = bool(data) or len(piece) == _PIECE_BYTES

    def _next(self, data: bytes) -> bytes:
        fresh, self._is_fresh = self._is_fresh, False
        try:
            return self._zlib.decompress(data, _PIECE_BYTES)
        except zlib.error:
            if not fresh:
                raise
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
            return self._zlib.decompress(data, _PIECE_BYTES)
