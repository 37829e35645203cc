"""Response inspectors: what may look at a response on its way to the client, and end it.

Pure and sans-io, like the layers that use it: content goes in, what may be passed on comes out.
"""

from collections.abc import Sequence
from typing import Protocol

from claude_proxy.policy.request import RawField


class ResponseCutOff(Exception):  # noqa: N818 - it is what happens to a response, no error of the program
    """The response must end here; `word` is its outcome in the audit log."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class ResponseInspector(Protocol):
    """Sees one response: its head, then its content piece by piece, then its end."""

    def head(self, status: int, fields: Sequence[RawField]) -> None:
        """Take a head, also an interim one or trailers; may raise ResponseCutOff."""

    def feed(self, data: bytes) -> bytes:
        """Take content; return what may be passed on; may raise ResponseCutOff."""

    def finish(self) -> bytes:
        """Return what was kept, at the end of the content; may raise ResponseCutOff."""


class InspectorChain:
    """Several inspectors, each of which sees what the one before it lets through."""

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
        """Return what the last lets through of all that was kept."""
        kept = b""
        for inspector in self._inspectors:
            kept = (inspector.feed(kept) if kept else b"") + inspector.finish()
        return kept
