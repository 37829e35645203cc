"""Gives memory back to the system when a crowd of connections has gone.

What they needed is free then, but does not go back by itself: the layers of a connection refer
to each other in circles and wait for Python's collector, which runs when much is made and not
when much ends; and the C library keeps what lies below anything still in use. After thousands
of connections that is hundreds of MiB, for as long as the process lives.
"""

import ctypes
import gc
import sys
from collections.abc import Callable

# Fewer are not worth the milliseconds for which everything else waits.
_CROWD = 256


def trim() -> None:
    """Hand what is free to the system, where the C library knows how to."""
    if sys.platform == "linux":
        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl keeps little
        if malloc_trim is not None:
            malloc_trim(0)


class Crowd:
    """Watches how many connections there are, and acts when most of a crowd has gone."""

    def __init__(
        self, collect: Callable[[], object] = gc.collect, trim: Callable[[], object] = trim
    ) -> None:
        self._collect = collect
        self._trim = trim
        self._most = 0
        self._noticed = False

    def look(self, connections: int) -> None:
        """Take note of how many there are now; to be called about once a second."""
        self._most = max(self._most, connections)
        gone = self._most - connections
        crowd = gone >= _CROWD and connections <= self._most // 2
        # The last one to go may have left large buffers, and then nobody is there to wait.
        if not crowd and (connections or not gone):
            self._noticed = False
            return
        if not self._noticed:
            # The event loop lets go of what has ended only in its next turns.
            self._noticed = True
            return
        if crowd:
            self._collect()
        self._trim()
        self._most, self._noticed = connections, False
