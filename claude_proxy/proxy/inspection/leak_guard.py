"""Leak guard: scans a response for the injected secret, and aborts it before the secret leaks.

Law kept: secrets stay outside. A server that repeats the request's credential in its response would
reveal it to a client that must not know it. A response that cannot be inspected is aborted as well.
Pure.
"""

import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from http import HTTPStatus

from claude_proxy.policy.credentials.escapes import Spelling
from claude_proxy.policy.request import RawField
from claude_proxy.proxy.inspection.base import ResponseCutOff
from claude_proxy.proxy.inspection.separated import SeparatedSearch

ECHOED = "credential-echoed"
UNREADABLE = "answer-unreadable"

_STEP = 64 * 1024  # of decoded content at a time
# Most bytes decoded from one piece: a decompression bomb would block all other clients.
_MOST_FROM_ONE_PIECE = 64 * 1024 * 1024
# Most compressed bytes held back because their content may be the beginning of the secret.
_MOST_WAITING = 64 * 1024
# Most content held back because its letters and digits may be the beginning of the secret.
_MOST_HELD = 1024 * 1024
# A prefix of the secret of at least this many bytes is held back; fewer for a short secret.
_TELLING = 8
# An empty line, which is not within any encoding: it ends an event, whose client waits for it.
_ENDS_OF_EVENTS = (b"\n\n", b"\r\n\r\n")
_PLAIN = frozenset({b"", b"identity"})
_GZIP = frozenset({b"gzip", b"x-gzip"})
_NO_CONTENT = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class LeakGuard:
    """Inspects one response; forwards only what cannot be part of a secret."""

    def __init__(self, guarded: Sequence[bytes]) -> None:
        self._search = _Search(guarded)
        self._inflate: _Inflate | None = None
        self._waiting = b""

    def __repr__(self) -> str:
        return "LeakGuard(set)"

    def head(self, status: int, fields: Sequence[RawField]) -> None:
        """Inspect a head; ResponseCutOff if it contains a secret or an unsupported coding."""
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
        """Inspect content, and return what may be forwarded now."""
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
        """Return what was held back: at the end it can only be an incomplete secret."""
        kept = self._search.finish()
        if self._inflate is None:
            return kept
        out, self._waiting = self._waiting, b""
        return out


class _Search:
    """Searches a stream for texts, and holds back what may be the beginning of one.

    A prefix of a few bytes is not held back: if a message ended in the first letter of a key, its
    client would have to wait for the next message. A few bytes alone reveal nothing.
    """

    def __init__(self, guarded: Sequence[bytes]) -> None:
        texts = [text for text in guarded if text]
        self._guarded = _spellings_of(tuple(texts))
        shortest = min(map(len, texts), default=0)
        self._telling = max(1, min(_TELLING, shortest // 4))  # the shortest prefix to hold back
        self._separated = SeparatedSearch(texts)
        self._passed = b""  # the last bytes forwarded, with which a text may have begun
        self.held = b""

    def whole(self, text: bytes) -> None:
        """Raise ResponseCutOff if `text` contains one of the texts."""
        if self._separated.is_in(text):
            raise ResponseCutOff(ECHOED)
        self._search(text)

    def _search(self, text: bytes) -> None:
        for guarded in self._guarded:
            if guarded.is_in(text):
                raise ResponseCutOff(ECHOED)

    def feed(self, data: bytes) -> bytes:
        """Search the next piece, and return what cannot be the beginning of a text."""
        text = self.held + data
        seen = self._passed + text
        self._search(seen)
        if self._separated.feed(data):
            raise ResponseCutOff(ECHOED)
        if self._separated.has_begun and not text.endswith(_ENDS_OF_EVENTS):
            return self._keep(text)
        begun = max((each.begun_in(seen, self._telling) for each in self._guarded), default=0)
        kept = min(begun, len(text)) if begun >= self._telling else 0
        out, self.held = text[: len(text) - kept], text[len(text) - kept :]
        before = len(seen) - kept
        self._passed = seen[max(0, before - self._telling + 1) : before]
        return out

    def _keep(self, text: bytes) -> bytes:
        """Hold a whole piece back: where a text begins among separators is not known."""
        if len(text) > _MOST_HELD:
            raise ResponseCutOff(UNREADABLE)
        self.held = text
        return b""

    def finish(self) -> bytes:
        """Return what was held back; ResponseCutOff if its end shows that it is a text."""
        if self._separated.finish():
            raise ResponseCutOff(ECHOED)
        out, self.held = self.held, b""
        return out


@lru_cache(maxsize=16)  # the same for each request with a credential
def _spellings_of(texts: tuple[bytes, ...]) -> tuple[Spelling, ...]:
    return tuple(map(Spelling, texts))


class _Inflate:
    """Decodes gzip (RFC 1952) or deflate (RFC 1950; some servers send raw RFC 1951)."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._begun = b""  # deflate: the first two bytes show which of the two forms it is
        self._inflater = zlib.decompressobj(_GZIP_WINDOW) if gzip else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded content of the next piece, in parts of a bounded size."""
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
                self._next_member()
            piece, data = self._step(self._inflater, data)
            left -= len(piece)
            if left < 0:
                raise ResponseCutOff(UNREADABLE)
            yield piece
            # A full step may have left content behind, although all input is used.
            more = bool(data) or len(piece) == _STEP

    def _next_member(self) -> None:
        # RFC 1952, 2.2: a gzip file may have several members. Deflate has only one.
        if not self._gzip:
            raise ResponseCutOff(UNREADABLE)
        self._inflater = zlib.decompressobj(_GZIP_WINDOW)

    def _step(self, inflater: "zlib._Decompress", data: bytes) -> tuple[bytes, bytes]:
        """Return the content of a part of `data`, and the rest of `data`."""
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
