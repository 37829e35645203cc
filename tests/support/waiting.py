"""Waiting for a fact by asking again, never by sleeping for a guess."""

import time
from collections.abc import Callable

PATIENCE_S = 120.0  # when a test gives up; no law is about time

_PAUSE_S = 0.01
_DAY_S = 86_400


def until[T](fact: Callable[[], T], what: str = "the fact", *, patience_s: float = PATIENCE_S) -> T:
    """Return the first true answer of `fact`; fail when patience is over."""
    deadline = time.monotonic() + patience_s
    while not (answer := fact()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s:.0f} s in vain: {what}")
        time.sleep(_PAUSE_S)
    return answer


def away_from_midnight() -> None:
    """Return when the day in UTC does not end within a minute, as a count starts again then."""
    left_s = _DAY_S - time.time() % _DAY_S
    if left_s < 60:  # pragma: no cover - one minute a day
        time.sleep(left_s)


def settled(number: Callable[[], int], *, pauses: int = 50) -> int:
    """Return `number` once it has stayed the same for a while."""
    last, same = number(), 0
    deadline = time.monotonic() + PATIENCE_S
    while same < pauses:
        time.sleep(_PAUSE_S)
        now = number()
        same, last = (same + 1, now) if now == last else (0, now)
        if time.monotonic() > deadline:
            raise AssertionError(f"never settled; the last value was {last}")
    return last
