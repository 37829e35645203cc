"""Stop generation: a counter, in memory that two processes share, of the stops by the mount guard.

It is odd while the guard has stopped the sandbox, so that the launcher does not take such a stop
for one by Ctrl-Z.
"""

import mmap


class StopGeneration:
    """The counter in one piece of shared memory."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, mmap.PAGESIZE)

    def begin(self) -> None:
        """Make it odd: everything inside is about to be stopped."""
        self._write(self.value | 1)

    def end(self) -> None:
        """Make it even: what was running runs again."""
        self._write((self.value | 1) + 1)

    @property
    def value(self) -> int:
        """The counter."""
        return int.from_bytes(self._memory[:8], "little")

    def _write(self, value: int) -> None:
        self._memory[:8] = value.to_bytes(8, "little")
