"""Ends an answer that holds a value which was put into its request."""

from collections.abc import Sequence

from claude_proxy.watch import Field


class EchoGuard:
    """A Watch over the values in `guarded`."""

    def __init__(self, guarded: Sequence[bytes]) -> None:
        self._guarded = guarded

    def head(self, status: int, fields: Sequence[Field]) -> None:
        raise NotImplementedError

    def feed(self, data: bytes) -> bytes:
        raise NotImplementedError

    def finish(self) -> bytes:
        raise NotImplementedError
