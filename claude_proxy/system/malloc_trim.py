"""Memory trimming: garbage collection and malloc_trim(3) after many connections have closed.

Without it, the process keeps hundreds of MiB after thousands of connections. The layers of a
connection form reference cycles, and Python's cyclic collector runs when objects are created, not
when they are released. The C library does not return free memory that lies below a used block.
"""

import ctypes
import gc
import sys
from collections.abc import Callable

# Closed connections. For fewer, collecting is not worth the milliseconds that it blocks the loop.
_MANY = 256


def trim() -> None:
    """Return free memory to the system, if the C library can do that."""
    if sys.platform == "linux":
        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl keeps little
        if malloc_trim is not None:
            malloc_trim(0)


class MemoryTrimmer:
    """Watches the number of connections, and trims after most of many have closed."""

    def __init__(
        self, collect: Callable[[], object] = gc.collect, trim: Callable[[], object] = trim
    ) -> None:
        self._collect = collect
        self._trim = trim
        self._peak = 0
        self._is_due = False

    def look(self, connections: int) -> None:
        """Note the number of open connections, and trim if it is time; call it every second."""
        self._peak = max(self._peak, connections)
        closed = self._peak - connections
        many = closed >= _MANY and connections <= self._peak // 2
        # The last connection may have left large buffers, and trimming then delays no client.
        if not many and (connections or not closed):
            self._is_due = False
            return
        if not self._is_due:
            # At the next call: the event loop releases closed connections in its next iterations.
            self._is_due = True
            return
        if many:
            self._collect()
        self._trim()
        self._peak, self._is_due = connections, False
