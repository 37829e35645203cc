"""Counts what goes through the gateway, and says when it is as much as the owner allows.

Pure: the time is handed in, as seconds since 1970. A day is one of UTC, as the providers count them.
"""

import math
from collections import deque

from claude_proxy.events import Usage
from claude_proxy.settings import Ceilings

MINUTE_S = 60.0
DAY_S = 86_400.0


def day_of(now: float) -> int:
    """Return the number of the day, counted from 1970."""
    return int(now // DAY_S)


def tokens_of(usage: Usage) -> int:
    """Return how many tokens count: all that were asked and answered, from a cache or not."""
    return usage.tokens_in + usage.tokens_out + usage.cache_written + usage.cache_read


class Meter:
    """What has been used of the ceilings."""

    def __init__(self, ceilings: Ceilings, *, now: float = 0.0, tokens: int = 0) -> None:
        self._ceilings = ceilings
        self._began: deque[float] = deque()
        self._day = day_of(now)
        self._tokens = tokens  # of this day, so far

    def begin(self, now: float) -> int | None:
        """Count a request that begins; if it may not, return after how many seconds one may."""
        wait_s = max(self._wait_for_minute(now), self._wait_for_day(now))
        if wait_s > 0:
            return max(1, math.ceil(wait_s))
        if self._ceilings.requests_per_minute is not None:
            self._began.append(now)
        return None

    def used(self, usage: Usage, now: float) -> None:
        """Count what an answer has cost."""
        self._turn_day(now)
        self._tokens += tokens_of(usage)

    def _wait_for_minute(self, now: float) -> float:
        most, began = self._ceilings.requests_per_minute, self._began
        if most is None:
            return 0.0
        # A clock that was set back must not keep anybody out for longer than a minute.
        while began and not 0 <= now - began[0] < MINUTE_S:
            began.popleft()
        if len(began) < most:
            return 0.0
        return (began[0] if began else now) + MINUTE_S - now

    def _wait_for_day(self, now: float) -> float:
        self._turn_day(now)
        most = self._ceilings.tokens_per_day
        if most is None or self._tokens < most:
            return 0.0
        return (self._day + 1) * DAY_S - now

    def _turn_day(self, now: float) -> None:
        if (day := day_of(now)) > self._day:
            self._day, self._tokens = day, 0
