"""Quotas of a gateway: requests a minute and tokens a day.

Pure: the time is handed in, as seconds since 1970, and so is the usage, which the audit log counts
over all processes. A day is one of UTC, as the providers count them.
"""

import math
from collections import deque

from claude_proxy.config.settings import Ceilings

MINUTE_S = 60.0
DAY_S = 86_400.0
UNDER_WAY_S = 5.0  # after which to ask again for tokens that requests under way have reserved


def day_began(now: float) -> float:
    """Return when the day of `now` began, in UTC."""
    return now // DAY_S * DAY_S


class Quota:
    """Keeps one gateway within its ceilings."""

    def __init__(self, ceilings: Ceilings) -> None:
        self.ceilings = ceilings
        self._began: deque[float] = deque()  # in the last minute, in this process

    def begin(self, now: float, *, requests: int, tokens: int, reserved: int = 0) -> int | None:
        """Let a request begin; if it may not, return after how many seconds one may.

        `requests` have begun within the last minute, and `tokens` were used up today, of which
        those that requests under way have `reserved` may come back.
        """
        began, ceilings = self._began, self.ceilings
        # A clock that was set back must not delay a request for longer than a minute.
        while began and not 0 <= now - began[0] < MINUTE_S:
            began.popleft()
        wait_s = 0.0
        if ceilings.requests_per_minute is not None:
            if max(requests, len(began)) >= ceilings.requests_per_minute:
                wait_s = (began[0] if began else now) + MINUTE_S - now
            else:
                began.append(now)
        wait_s = max(wait_s, self.tokens_wait_s(now, tokens=tokens, reserved=reserved))
        return max(1, math.ceil(wait_s)) if wait_s else None

    def tokens_wait_s(self, now: float, *, tokens: int, reserved: int) -> float:
        """Return after how many seconds there may be tokens again; 0: there are some."""
        most = self.ceilings.tokens_per_day
        if most is None or tokens < most:
            return 0.0
        return UNDER_WAY_S if tokens - reserved < most else day_began(now) + DAY_S - now
