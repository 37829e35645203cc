"""Stop and reload signals, read on a thread, with a deadline by which the process ends.

Law kept: the owner can always stop the proxy. The thread takes the signals and counts the time
itself, so an event loop that is busy, or waits for a disk, neither delays nor prevents the end.
"""

import asyncio
import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable

# What the loop has beyond the grace time to close connections, the audit log and sockets.
_CLOSING_S = 0.5
# After a second signal, which ends the grace time.
_AT_ONCE_S = 0.3
# A service manager signals every process of a service, and so does the parent of the workers.
_SAME_ORDER_S = 0.5


class StopSignals:
    """The signals of one process, passed on to its event loop, and the deadline of its end."""

    def __init__(
        self,
        grace_s: float,
        overdue: Callable[[], None],
        *,
        until: int | None = None,
        is_worker: bool = False,
    ) -> None:
        """Prepare; `overdue` is called, on the thread, once the deadline has passed.

        `until` is a descriptor whose end stops the proxy like a signal. A worker leaves Ctrl-C to
        its parent.
        """
        self._grace_s = grace_s
        self._overdue = overdue
        self._until = until
        self._is_worker = is_worker
        self._stops = {signal.SIGTERM} if is_worker else {signal.SIGTERM, signal.SIGINT}
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        # Here too, so that the loop, which uses a descriptor of its own, restores it when it ends.
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._has_terminal = os.isatty(0)
        self._stopped_at = 0.0
        self._deadline: float | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        self.orders = 0  # to stop; the second one means at once
        self.stop = asyncio.Event()

    def start(self, reload: Callable[[], None]) -> None:
        """Begin to read signals, from a coroutine; `reload` is called on the loop, for SIGHUP."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._run, args=(loop, reload), name="signals", daemon=True
        )
        # Not the descriptor of the loop, which a busy loop does not read. Without a Python handler
        # nothing would be written to either.
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in (*self._stops, signal.SIGHUP):
            signal.signal(number, _only_wake_up)
        self._thread.start()

    def close(self) -> None:
        """Stop reading, and cancel the deadline; the signals have no effect then."""
        signal.set_wakeup_fd(-1)
        if self._thread is not None:
            self._closed = True
            os.write(self._writing, b"\0")
            self._thread.join()
        os.close(self._reading)
        os.close(self._writing)

    def _run(self, loop: asyncio.AbstractEventLoop, reload: Callable[[], None]) -> None:
        awaited = [self._reading] if self._until is None else [self._reading, self._until]
        while True:
            left = None if self._deadline is None else self._deadline - time.monotonic()
            if left is not None and left <= 0:
                self._overdue()
                return
            readable, _, _ = select.select(awaited, (), (), left)
            if self._until in readable:
                awaited.remove(self._until)
                self._stop(loop)
            if self._reading in readable:
                for number in os.read(self._reading, 4096):
                    self._take(number, loop, reload)
            if self._closed:
                return

    def _take(
        self, number: int, loop: asyncio.AbstractEventLoop, reload: Callable[[], None]
    ) -> None:
        # Closing a terminal sends SIGHUP too.
        hangs_up = number == signal.SIGHUP and self._has_terminal and not os.isatty(0)
        if number in self._stops or hangs_up:
            self._stop(loop)
        elif number == signal.SIGHUP:
            _call(loop, reload)

    def _stop(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        if self._deadline is None:
            self._stopped_at = now
            self._deadline = now + self._grace_s + _CLOSING_S
        elif self._is_worker and now - self._stopped_at < _SAME_ORDER_S:
            return
        else:
            self._deadline = min(self._deadline, now + _AT_ONCE_S)
        self.orders += 1
        _call(loop, self.stop.set)


def _only_wake_up(_: int, __: object) -> None:
    """Do nothing: the number has been written to the descriptor."""


def _call(loop: asyncio.AbstractEventLoop, do: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has been closed
        loop.call_soon_threadsafe(do)
