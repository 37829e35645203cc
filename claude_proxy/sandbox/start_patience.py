"""Limit of the wait for a proxy that a run starts: a note after some seconds, an error at the end.

A process can hang before it reports anything: stopped by a signal or a debugger, or on a file
system that does not answer. A run neither waits for it without limit nor without saying so.
"""

import select
import time
from collections.abc import Callable, Sequence

LIMIT_S = 120.0
_NOTE_AFTER_S = 5.0


class StartPatience:
    """How long a run waits for its proxy, from now on; `say` prints a line to the user."""

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        now = time.monotonic()
        self.note_at: float | None = now + _NOTE_AFTER_S  # None: said
        self.give_up_at = now + LIMIT_S
        self._say = say

    @property
    def left_s(self) -> float:
        """How long the wait may still take."""
        return max(0.0, self.give_up_at - time.monotonic())

    def readable(self, descriptor: int, pid: int) -> bool:
        """Wait until a descriptor can be read that the process `pid` writes; False: too long."""
        return self._wait([descriptor], [], pid)

    def writable(self, descriptor: int, pid: int) -> bool:
        """Wait until a descriptor can be written that the process `pid` reads; False: too long."""
        return self._wait([], [descriptor], pid)

    def _wait(self, reading: Sequence[int], writing: Sequence[int], pid: int) -> bool:
        if self.note_at is not None:
            pause_s = max(0.0, min(self.note_at, self.give_up_at) - time.monotonic())
            if any(select.select(reading, writing, [], pause_s)):
                return True
            self.note_at = None
            self._say(f"note: the run waits for its proxy (process {pid}), which is not ready yet")
        return any(select.select(reading, writing, [], self.left_s))
