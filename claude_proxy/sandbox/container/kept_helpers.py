"""Helper processes that are started again when they have died, ever more slowly.

Law kept: fail closed: while none of them runs, what they serve has no network. The sockets that
they serve are the keeper's, so connections wait meanwhile instead of being refused.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.helper_processes import HelperProcess, ProxyProcess

_PAUSE_S = 0.1  # before the second start within the window; then doubled
_MOST_PAUSE_S = 30.0
_MOST_STARTS = 10
_WINDOW_S = 600.0

type Start = Callable[[bool], Sequence[HelperProcess]]  # whether it is started again
type Note = Callable[[str], None]


class Starts:
    """When a helper was started, and when it may be started again."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_MOST_STARTS)

    def next_at(self, now: float) -> tuple[float, bool]:
        """Return when to start it again, and whether it has failed too often by now."""
        while self._times and self._times[0] < now - _WINDOW_S:
            self._times.popleft()
        if len(self._times) >= _MOST_STARTS:
            return now + _WINDOW_S, True
        pause = 0.0 if not self._times else min(_PAUSE_S * 2 ** len(self._times), _MOST_PAUSE_S)
        self._times.append(now)
        return now + pause, False


class KeptHelper:
    """The processes of one kind, which are started and ended together."""

    def __init__(self, what: str, start: Start, note: Note) -> None:
        self.what, self._start, self._note = what, start, note
        self._starts = Starts()
        self.restarts = 0
        self.due: float | None = None  # when to start it again; None: it runs
        self.processes: Sequence[HelperProcess] = start(False)

    @property
    def alive(self) -> list[HelperProcess]:
        """Those that run."""
        return [process for process in self.processes if process.alive]

    def look_after(self, now: float) -> None:
        """See whether they still run; start them again when it is time."""
        if self.due is not None:
            if self.due <= now:
                self._start_again()
            return
        for process in self.processes:
            if isinstance(process, ProxyProcess):
                process.hear()
            if not process.alive:
                self._plan_restart(process, now)
                return

    def _plan_restart(self, process: HelperProcess, now: float) -> None:
        error = process.start_error if isinstance(process, ProxyProcess) else None
        why = f": {error.what}" if error is not None else ""
        self.due, given_up = self._starts.next_at(now)
        if given_up:
            self._note(f"the {self.what} fails again and again{why}; there is no network meanwhile")
        else:
            self._note(f"the {self.what} ended (process {process.pid}){why}")

    def _start_again(self) -> None:
        self.restarts += 1
        for process in self.processes:
            process.end()
        try:
            self.processes = self._start(True)
        except (ClaudeProxyError, OSError) as error:
            self.due = time.monotonic() + _MOST_PAUSE_S
            self._note(f"the {self.what} cannot be started: {error}")
        else:
            self.due = None
            self._note(f"the {self.what} was started again")
