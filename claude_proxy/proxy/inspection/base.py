"""Says what may look at an answer on its way to the client, and end it.

Pure, and sans-io like the layers that use it: content in, what may be passed on now out.
"""

from collections.abc import Sequence
from typing import Protocol

type RawField = tuple[bytes, bytes]


class ResponseCutOff(Exception):  # noqa: N818 - it is what becomes of the answer, not an error of the program
    """The answer must end here; `word` is what the audit log says about it."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class ResponseInspector(Protocol):
    """Sees one answer: its head, then its content piece by piece, then its end."""

    def head(self, status: int, fields: Sequence[RawField]) -> None:
        """Take a head, interim ones and trailers too; may raise CutOff."""

    def feed(self, data: bytes) -> bytes:
        """Take content; return what may be passed on now, and keep the rest; may raise CutOff."""

    def finish(self) -> bytes:
        """Return what was kept, as the content is at its end; may raise CutOff."""


class InspectorChain:
    """Several watches, each of which sees what the one before it lets through."""

    def __init__(self, watches: Sequence[ResponseInspector]) -> None:
        self._watches = watches

    def head(self, status: int, fields: Sequence[RawField]) -> None:
        """Show the head to each."""
        for watch in self._watches:
            watch.head(status, fields)

    def feed(self, data: bytes) -> bytes:
        """Hand content from each to the next."""
        for watch in self._watches:
            data = watch.feed(data)
        return data

    def finish(self) -> bytes:
        """Return what the last lets through of all that was kept."""
        kept = b""
        for watch in self._watches:
            kept = (watch.feed(kept) if kept else b"") + watch.finish()
        return kept
