"""Trust in the wall clock: whether rows may be deleted because of their age.

Law: a clock that jumps deletes nothing. The wall clock is believed while it keeps step with the
time since boot, and at the start if the newest rows agree with it; after a jump, once it has kept
step for a while. A row that is kept too long can still be deleted, a deleted one is gone.
"""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

_SECOND_NS: Final = 1_000_000_000
# NTP steps a clock by less, and a drift adds up to less between two looks.
STEP_NS: Final = 60 * _SECOND_NS
# A wrong clock that is noticed is set right within minutes.
PATIENCE_NS: Final = 10 * 60 * _SECOND_NS
# Recording pauses at night and over lunch. A longer pause looks like a jump, and only delays.
GAP_NS: Final = 86_400 * _SECOND_NS
NEWEST: Final = 256  # rows that are looked at


def since_boot_ns() -> int:
    """Return the time since boot, which counts on while the machine sleeps, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock)


class ClockWatch:
    """Compares the wall clock with the time since boot; times are in nanoseconds."""

    def __init__(
        self,
        newest_rows: Sequence[int],
        *,
        wall: Callable[[], int] = time.time_ns,
        boot: Callable[[], int] = since_boot_ns,
    ) -> None:
        self._wall = wall
        self._boot = boot
        now = wall()
        self._difference = now - boot()
        self._trusted_from = boot() + (0 if _agree(newest_rows, now) else PATIENCE_NS)

    def trusted_now(self) -> int | None:
        """Return the wall clock's time if rows may be deleted by it, else None."""
        now, boot = self._wall(), self._boot()
        if abs(now - boot - self._difference) > STEP_NS:
            self._difference = now - boot
            self._trusted_from = boot + PATIENCE_NS
        return now if boot >= self._trusted_from else None


def _agree(newest_rows: Sequence[int], now: int) -> bool:
    """Tell whether the times of the newest rows lead up to `now` without a jump."""
    times = [*sorted(newest_rows), now]
    return all(0 <= later - earlier < GAP_NS for earlier, later in pairwise(times))
