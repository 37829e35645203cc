"""Watches an answer for the value that was put into its request, and ends it before it is out.

Law kept: secrets stay outside (9). A server that tells its caller what it was asked with would hand
the value to a client that must not know it. What cannot be looked into is ended as well. Pure.
"""

import zlib
from collections.abc import Iterator, Sequence
from http import HTTPStatus

from claude_proxy.policy.credentials.escapes import Spelling
from claude_proxy.proxy.inspection.base import RawField, ResponseCutOff

ECHOED = "credential-echoed"
UNREADABLE = "answer-unreadable"

_STEP = 64 * 1024  # of decoded content at a time
# Of one piece: a few bytes that stand for gigabytes would hold up everybody else.
_MOST_FROM_ONE_PIECE = 64 * 1024 * 1024
# Compressed bytes that wait because what they stand for may be the beginning of the value.
_MOST_WAITING = 64 * 1024
# How many bytes of a text's beginning are worth keeping back, where it is not a short one.
_TELLING = 8
_PLAIN = frozenset({b"", b"identity"})
_GZIP = frozenset({b"gzip", b"x-gzip"})
_NO_CONTENT = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class LeakGuard:
    """Sees one answer, and lets through what neither is one of the values nor may become one."""

    def __init__(self, guarded: Sequence[bytes]) -> None:
        self._search = _Search(guarded)
        self._inflate: _Inflate | None = None
        self._waiting = b""

    def __repr__(self) -> str:
        return "LeakGuard(set)"

    def head(self, status: int, fields: Sequence[RawField]) -> None:
        """Take a head; CutOff if a value stands in it, or in content that cannot be read."""
        self._search.whole(b"\n".join(map(b": ".join, fields)))
        if status < HTTPStatus.OK or status in _NO_CONTENT:
            return
        codings = [
            item.strip(b" \t").lower()
            for name, value in fields
            if name.lower() == b"content-encoding"
            for item in value.split(b",")
        ]
        coded = [coding for coding in codings if coding not in _PLAIN]
        if coded:
            self._inflate = _inflate_of(coded)

    def feed(self, data: bytes) -> bytes:
        """Take content; return what may go on now."""
        if self._inflate is None:
            return self._search.feed(data)
        self._waiting += data
        for piece in self._inflate.feed(data):
            self._search.feed(piece)
        if not self._search.held:
            out, self._waiting = self._waiting, b""
            return out
        if len(self._waiting) > _MOST_WAITING:
            raise ResponseCutOff(UNREADABLE)
        return b""

    def finish(self) -> bytes:
        """Return what was kept: at the end it is no more than a beginning."""
        if self._inflate is None:
            return self._search.finish()
        out, self._waiting = self._waiting, b""
        return out


class _Search:
    """Looks for some texts in a stream, and keeps back what may be the beginning of one.

    Not from its first byte on: whoever waits for a message that happens to end in the letter by
    which a key begins would wait for the next one. A few bytes alone tell nobody anything.
    """

    def __init__(self, guarded: Sequence[bytes]) -> None:
        texts = [text for text in guarded if text]
        self._guarded = tuple(map(Spelling, texts))
        shortest = min(map(len, texts), default=0)
        self._telling = max(1, min(_TELLING, shortest // 4))  # so many bytes are kept back
        self._passed = b""  # the last bytes that have gone on, with which a text may have begun
        self.held = b""

    def whole(self, text: bytes) -> None:
        """Look through a text that stands alone."""
        for guarded in self._guarded:
            if guarded.is_in(text):
                raise ResponseCutOff(ECHOED)

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; return what cannot become one of the texts."""
        text = self.held + data
        seen = self._passed + text
        self.whole(seen)
        begun = max((each.begun_in(seen) for each in self._guarded), default=0)
        kept = min(begun, len(text)) if begun >= self._telling else 0
        out, self.held = text[: len(text) - kept], text[len(text) - kept :]
        before = len(seen) - kept
        self._passed = seen[max(0, before - self._telling + 1) : before]
        return out

    def finish(self) -> bytes:
        """Return what was kept back."""
        out, self.held = self.held, b""
        return out


class _Inflate:
    """Reads gzip (RFC 1952) or deflate (RFC 1950, and the bare RFC 1951 that some send)."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._begun = b""  # of deflate, whose first two bytes tell which of the two it is
        self._inflater = zlib.decompressobj(_GZIP_WINDOW) if gzip else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what stands in the next piece, a bounded part at a time."""
        if self._inflater is None:
            data = self._begun + data
            self._begun = data
            if len(data) < len(b"\x78\x9c"):
                return
            wrapped = data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2]) % 31 == 0
            self._inflater = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        left = _MOST_FROM_ONE_PIECE
        more = True
        while more:
            if data and self._inflater.eof:
                self._begin_again()
            piece, data = self._step(self._inflater, data)
            left -= len(piece)
            if left < 0:
                raise ResponseCutOff(UNREADABLE)
            yield piece
            # A full step may have left something inside, although all bytes are taken.
            more = bool(data) or len(piece) == _STEP

    def _begin_again(self) -> None:
        # RFC 1952, 2.2: a gzip file may have several members. After deflate there is nothing.
        if not self._gzip:
            raise ResponseCutOff(UNREADABLE)
        self._inflater = zlib.decompressobj(_GZIP_WINDOW)

    def _step(self, inflater: "zlib._Decompress", data: bytes) -> tuple[bytes, bytes]:
        """Return what a part of `data` stands for, and what is left of it."""
        try:
            piece = inflater.decompress(data, _STEP)
        except zlib.error:
            raise ResponseCutOff(UNREADABLE) from None
        return piece, inflater.unused_data if inflater.eof else inflater.unconsumed_tail


_GZIP_WINDOW = zlib.MAX_WBITS | 16


def _inflate_of(codings: Sequence[bytes]) -> _Inflate:
    if len(codings) == 1 and codings[0] in _GZIP:
        return _Inflate(gzip=True)
    if codings == [b"deflate"]:
        return _Inflate(gzip=False)
    raise ResponseCutOff(UNREADABLE)
