"""Process that another process has started, with the methods of `subprocess.Popen` that we use.

Only its parent learns an exit code, so the code is unknown here. A descriptor refers to the
process, which no other one can replace.
"""

import os
import select
import signal
import subprocess
from contextlib import suppress

UNKNOWN_CODE = 255


class AdoptedProcess:
    """A process by its id; open it while it cannot have been waited for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.args: list[str] = []
        self.returncode: int | None = None
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return a code if it has ended."""
        if self.returncode is None and self._has_ended(0):
            self.returncode = UNKNOWN_CODE
            os.close(self._descriptor)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; subprocess.TimeoutExpired if that takes too long."""
        if self.returncode is None and not self._has_ended(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.poll() or UNKNOWN_CODE

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def _has_ended(self, timeout_s: float | None) -> bool:
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        return bool(waiting.poll(None if timeout_s is None else timeout_s * 1000))
