"""Memory of the C library: kept for the next read, and trimmed after many connections have closed.

Without it, the process keeps hundreds of MiB after thousands of connections. The layers of a
connection form reference cycles, and Python's cyclic collector runs when objects are created, not
when they are released. The C library does not return free memory that lies below a used block, but
what is above at once: each read of a long transfer would get its memory from the system again.
"""

import ctypes
import gc
import sys
from collections.abc import Callable

# Closed connections. For fewer, collecting is not worth the milliseconds that it blocks the loop.
_MANY = 256

# <malloc.h>, and what they are set to. The largest buffers of a transfer have 256 KiB; bodies that
# are held to be judged have more, and their memory goes back to the system with them.
_M_TRIM_THRESHOLD, _KEPT_BYTES = -1, 8 * 1024 * 1024
_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 1024 * 1024


def keep_buffers() -> bool:
    """Have the C library keep some free memory for the next buffers; tell whether it does that.

    A transfer takes a fifth less of the processor: no page is asked for, cleared and given back for
    each read.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:  # another C library than glibc
        return False
    settings = ((_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_MMAP_THRESHOLD, _LARGE_BYTES))
    return all([mallopt(name, value) for name, value in settings])  # noqa: C419 - both are set


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
