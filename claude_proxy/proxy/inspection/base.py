"""Response inspectors: see a response on its way to the client, and may abort it.

Pure and sans-io: content goes in, and the part that may be forwarded comes out.
"""

from collections.abc import Sequence
from typing import Protocol

from claude_proxy.policy.request import RawField


class ResponseCutOff(Exception):  # noqa: N818 - an event of a response, not a program error
    """The response must be aborted; `word` is its outcome in the audit log."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class ResponseInspector(Protocol):
    """Inspects one response: its head, then its content in pieces, then its end."""

    def head(self, status: int, fields: Sequence[RawField]) -> None:
        """Inspect a head, an interim head, or trailers; may raise ResponseCutOff."""

    def feed(self, data: bytes) -> bytes:
        """Inspect content, and return what may be forwarded; may raise ResponseCutOff."""

    def finish(self) -> bytes:
        """Return the content that was held back, at its end; may raise ResponseCutOff."""


class InspectorChain:
    """Several inspectors in a row; each sees what the one before it forwards."""

    def __init__(self, inspectors: Sequence[ResponseInspector]) -> None:
        self._inspectors = inspectors

    def head(self, status: int, fields: Sequence[RawField]) -> None:
        """Show the head to every inspector."""
        for inspector in self._inspectors:
            inspector.head(status, fields)

    def feed(self, data: bytes) -> bytes:
        """Pass content from each inspector to the next."""
        for inspector in self._inspectors:
            data = inspector.feed(data)
        return data

    def finish(self) -> bytes:
        """Pass what each inspector held back to the next, and return the rest."""
        kept = b""
        for inspector in self._inspectors:
            kept = (inspector.feed(kept) if kept else b"") + inspector.finish()
        return kept
