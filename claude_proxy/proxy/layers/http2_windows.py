"""HTTP/2 receive windows: what a peer may send before it was passed on (RFC 9113 section 5.2).

A window is the most that is buffered of a stream. It begins small, and doubles while the other side
takes everything at once, so that a distant peer can send at full speed; a stream that nobody takes
never grows. What all windows of the process have grown together is bounded as well.
"""

from typing import Final

FIRST_WINDOW: Final = 64 * 1024
# 4 MiB every 80 ms are 400 Mbit/s.
LARGEST_WINDOW: Final = 4 * 1024 * 1024
# Sixteen streams at their largest, in all connections together.
_GROWTH: Final = 64 * 1024 * 1024


class WindowBudget:
    """The bytes by which the windows of one process may have grown beyond the first size."""

    def __init__(self, limit: int = _GROWTH) -> None:
        self._left = limit

    @property
    def left(self) -> int:
        """The bytes that are not lent."""
        return self._left

    def take(self, size: int) -> bool:
        """Lend `size` bytes; False: there are not so many left."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """Take back what was lent."""
        self._left += size


class ReceiveWindow:
    """The window of one stream: turns bytes that were passed on into updates for the peer."""

    __slots__ = ("_budget", "_credit", "_size")

    def __init__(self, budget: WindowBudget) -> None:
        self._budget = budget
        self._size = FIRST_WINDOW
        self._credit = 0

    def passed_on(self, size: int, *, at_once: bool) -> int:
        """Note that `size` bytes were passed on; return the increment to send now, or 0.

        `at_once`: nothing of the stream waits, so that a larger window would be used.
        """
        self._credit += size
        # Not for each frame: half a window at a time keeps the peer busy just as well.
        if self._credit < self._size // 2:
            return 0
        increment, self._credit = self._credit, 0
        if at_once and self._size < LARGEST_WINDOW and self._budget.take(self._size):
            increment += self._size
            self._size *= 2
        return increment

    def close(self) -> None:
        """Give back what the window has grown."""
        self._budget.give_back(self._size - FIRST_WINDOW)
        self._size = FIRST_WINDOW
