"""Suppression of exceptions for helper programs: `contextlib.suppress`, without its imports.

`contextlib` brings `collections` and `functools` along, which takes a program that is started for
each run longer than its own work.
"""

from types import TracebackType


class suppress:  # noqa: N801 - in place of contextlib's
    """Goes on after the block if one of these exceptions ends it."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        return kind is not None and issubclass(kind, self._kinds)
