"""Demand for warm connections: how many a client needs at once for one target; pure.

A client that opens tunnels in bursts, as Claude Code does at its start, waits for the slowest of
each burst. Laws kept: there is never more than a few for one target, and no target is known longer
than its connections are.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

# Requests within this time are one burst: none of them can have been answered by the time that a
# connection which is opened for the next is ready, be it as far as it may.
BURST_S = 1.0
MOST_AT_ONCE = 4
# After a time without so large a burst, one is kept again.
REMEMBERED_S = 90.0
MOST_KEYS = 256


@dataclass(slots=True)
class _Bursts:
    """When connections were asked for lately, and how many at once at most."""

    asked: list[float] = field(default_factory=list)  # of this burst, the latest last
    most: int = 1
    most_at: float = 0.0


class Demand:
    """Sizes of bursts by key."""

    def __init__(self) -> None:
        self._bursts: dict[Hashable, _Bursts] = {}

    def __len__(self) -> int:
        return len(self._bursts)

    def found(self, key: Hashable, now_s: float) -> None:
        """Note that a request found a connection ready."""
        bursts = self._noted(key, now_s)
        if len(bursts.asked) >= bursts.most:
            bursts.most_at = now_s

    def missed(self, key: Hashable, now_s: float) -> None:
        """Note that a request found none: with so many as came at once, it would have."""
        bursts = self._noted(key, now_s)
        size = len(bursts.asked)
        if size >= bursts.most or now_s - bursts.most_at >= REMEMBERED_S:
            bursts.most, bursts.most_at = size, now_s

    def _noted(self, key: Hashable, now_s: float) -> _Bursts:
        bursts = self._bursts.pop(key, None) or _Bursts()
        self._bursts[key] = bursts
        if len(self._bursts) > MOST_KEYS:
            del self._bursts[next(iter(self._bursts))]
        recent = [at for at in bursts.asked if 0 <= now_s - at < BURST_S]
        bursts.asked = [*recent, now_s][-MOST_AT_ONCE:]
        return bursts

    def wanted(self, key: Hashable, now_s: float) -> int:
        """Return how many connections to keep ready: as many as the largest recent burst needed."""
        bursts = self._bursts.get(key)
        if bursts is None or not 0 <= now_s - bursts.most_at < REMEMBERED_S:
            return 1
        return bursts.most
