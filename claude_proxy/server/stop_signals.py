"""Stop and reload signals, read on a thread, with a deadline by which the process ends.

Law kept: the owner can always stop the proxy. The thread takes the signals and counts the time
itself, so an event loop that is busy, or waits for a disk, neither delays nor prevents the end. Nor
does an import of the engine, during which there is no loop yet.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

# What the loop has beyond the grace time to close connections, the audit log and sockets.
_CLOSING_S = 0.5
# After a second signal, which ends the grace time.
_AT_ONCE_S = 0.3
# A service manager signals every process of a service, and so does the parent of the workers.
_SAME_ORDER_S = 0.5


@dataclass(frozen=True, slots=True)
class _Target:
    """What is called on the event loop."""

    loop: "AbstractEventLoop"
    reload: Callable[[], None]
    stop: Callable[[], None]


class StopSignals:
    """The signals of one process, passed on to its event loop, and the deadline of its end."""

    def __init__(
        self,
        grace_s: float,
        *,
        early: Callable[[], None],
        overdue: Callable[[], None],
        until: int | None = None,
        is_worker: bool = False,
    ) -> None:
        """Prepare; `early` and `overdue` are called on the thread, and end the process.

        `early` is called for a stop before `start`, and `overdue` once the deadline has passed.
        `until` is a descriptor whose end stops the proxy like a signal. A worker leaves Ctrl-C to
        its parent.
        """
        self._grace_s = grace_s
        self._early = early
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
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)
        self._starting = threading.Lock()  # decides whether a stop comes before the start
        self._target: _Target | None = None
        self.orders = 0  # to stop; the second one means at once

    def begin(self) -> None:
        """Begin to read signals, while there is no event loop; Ctrl-C still interrupts."""
        signal.signal(signal.SIGTERM, _only_wake_up)
        self._thread.start()

    def start(
        self, loop: "AbstractEventLoop", reload: Callable[[], None], stop: Callable[[], None]
    ) -> None:
        """Call `reload` and `stop` on the loop from now on, for SIGHUP and for an order to stop."""
        # Not the descriptor of the loop, which a busy loop does not read. Without a Python handler
        # nothing would be written to either.
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        with self._starting:
            self._target = _Target(loop, reload, stop)
        for number in (*self._stops, signal.SIGHUP):
            signal.signal(number, _only_wake_up)

    def close(self) -> None:
        """Stop reading, and cancel the deadline; the signals have no effect then."""
        signal.set_wakeup_fd(-1)
        if self._thread.ident is not None:
            self._closed = True
            os.write(self._writing, b"\0")
            self._thread.join()
        os.close(self._reading)
        os.close(self._writing)

    def _run(self) -> None:
        awaited = [self._reading] if self._until is None else [self._reading, self._until]
        while True:
            left = None if self._deadline is None else self._deadline - time.monotonic()
            if left is not None and left <= 0:
                self._overdue()
                return
            readable, _, _ = select.select(awaited, (), (), left)
            if self._until in readable:
                awaited.remove(self._until)
                self._stop()
            if self._reading in readable:
                for number in os.read(self._reading, 4096):
                    self._take(number)
            if self._closed:
                return

    def _take(self, number: int) -> None:
        if self._target is None and number != signal.SIGTERM:
            return  # Python's own handler of Ctrl-C has it
        # Closing a terminal sends SIGHUP too.
        hangs_up = number == signal.SIGHUP and self._has_terminal and not os.isatty(0)
        if number in self._stops or hangs_up:
            self._stop()
        elif number == signal.SIGHUP and self._target is not None:
            _call(self._target.loop, self._target.reload)

    def _stop(self) -> None:
        with self._starting:
            target = self._target
            if target is None:
                self._early()
                return
        now = time.monotonic()
        if self._deadline is None:
            self._stopped_at = now
            self._deadline = now + self._grace_s + _CLOSING_S
        elif self._is_worker and now - self._stopped_at < _SAME_ORDER_S:
            return
        else:
            self._deadline = min(self._deadline, now + _AT_ONCE_S)
        self.orders += 1
        _call(target.loop, target.stop)


def _only_wake_up(_: int, __: object) -> None:
    """Do nothing: the number has been written to the descriptor."""


def _call(loop: "AbstractEventLoop", do: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has been closed
        loop.call_soon_threadsafe(do)
