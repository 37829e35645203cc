"""Rate-limited warnings: what a misconfigured client causes again and again is not repeated."""

import time
from collections.abc import Callable

_EVERY_S = 60.0  # a person who has just started a client sees it; a loop of retries fills nothing
_REMEMBERED = 64  # different texts


class RareWarnings:
    """Says each text once in a while."""

    def __init__(
        self, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._clock = clock
        self._said: dict[str, float] = {}

    def warn(self, text: str) -> None:
        """Say `text`, unless it was said a short while ago."""
        now = self._clock()
        last = self._said.get(text)
        if last is not None and now - last < _EVERY_S:
            return
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said[text] = now
        self._say(text)
