"""Rate-limited warnings: what a misconfigured client causes again and again is not repeated."""

import time
from collections.abc import Callable, Hashable
from typing import Protocol

_EVERY_S = 60.0  # a person who has just started a client sees it; a loop of retries fills nothing
_REMEMBERED = 64  # different texts
_LONG_WORK_EVERY_S = 1.0


class MakeText(Protocol):
    """Makes the text of a warning."""

    def __call__(self, *, may_take_long: bool) -> str:
        """Return the text, which may take some milliseconds to make only now and then."""


class RareWarnings:
    """Says each text once in a while."""

    def __init__(
        self, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._clock = clock
        self._said: dict[Hashable, float] = {}
        self._worked_at: float | None = None

    def warn(self, text: str) -> None:
        """Say `text`, unless it was said a short while ago."""
        if self._is_due(text):
            self._say(text)

    def warn_about(self, what: Hashable, make_text: MakeText) -> None:
        """Say a text about something, unless one about it was said a short while ago."""
        if not self._is_due(what):
            return
        now, worked_at = self._clock(), self._worked_at
        may_take_long = worked_at is None or now - worked_at >= _LONG_WORK_EVERY_S
        if may_take_long:
            self._worked_at = now
        self._say(make_text(may_take_long=may_take_long))

    def _is_due(self, what: Hashable) -> bool:
        now = self._clock()
        last = self._said.get(what)
        if last is not None and now - last < _EVERY_S:
            return False
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said[what] = now
        return True
