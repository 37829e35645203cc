"""Worker processes: several proxy processes on one port, for machines with many agents.

One process uses one core. The parent only binds, forks and waits: it opens nothing else, serves no
client and has no threads, as it forks again when a worker ends unexpectedly. Keeps "no quiet
downgrade": such an end is reported, and one that happens again and again ends the proxy. A worker
whose parent is gone stops by itself.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.server import logs
from claude_proxy.system.sd_notify import StateListener, WorkerReports

# Linux spreads new connections over all sockets bound with SO_REUSEPORT; other systems do not.
CAN_SPREAD = sys.platform == "linux"

_STOPS = (signal.SIGTERM, signal.SIGINT)
_HANDLED = (*_STOPS, signal.SIGHUP, signal.SIGCHLD)

# A worker ends itself well before (`stop_signals`), unless it can do nothing at all any more.
_KILL_AFTER_S = 0.8
_KILL_AT_ONCE_S = 0.5

# One that ends sooner has a fault that a replacement has too, as a rule.
_SHORT_LIFE_S = 10.0
_SHORT_LIVES = 5  # in a row, and then the proxy gives up
_FIRST_PAUSE_S = 0.1  # doubles with each of them
_LONGEST_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """Which of the workers this process is, and how it talks to the parent."""

    number: int = 0
    parent_gone: int | None = None  # a descriptor that becomes readable when the parent ends
    report: int | None = None  # a pipe to the parent for this worker's state
    replaces: str | None = None  # how the process before this one ended

    @property
    def speaks(self) -> bool:
        """Whether this worker prints and records messages about the whole proxy."""
        return self.number == 0


@dataclass(slots=True)
class _Life:
    """The current process of one slot, and those before it."""

    number: int
    pid: int | None = None
    started_at: float = 0.0
    short_lives: int = 0
    due: float | None = None  # when to fork again
    ended: str = ""  # how the last process ended


def run(
    count: int,
    work: Callable[[WorkerSlot], None],
    news: StateListener,
    *,
    grace_s: float,
    until: int | None = None,
) -> None:
    """Call `work` in `count` child processes until a signal stops them, or `until` closes.

    The parent reports to `news` what is true of all workers, and replaces one that ends. Raises
    ClaudeProxyError if one does not start, or ends again and again.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with _Supervisor(count, work, news, grace_s, until) as supervisor:
        supervisor.supervise()


@dataclass(slots=True)
class _Supervisor:
    """The parent: which workers are alive, and what is to be done next."""

    count: int
    work: Callable[[WorkerSlot], None]
    news: StateListener
    grace_s: float
    until: int | None
    _lives: list[_Life] = field(default_factory=list)
    _pipes: list[int] = field(default_factory=list)
    _kill_at: float | None = None  # set once the workers were told to stop
    _failed: str = ""

    def __enter__(self) -> Self:
        # Nothing is ever written to the first: it closes when the parent ends.
        for _ in ("parent gone", "reports", "signals"):
            self._pipes.extend(os.pipe())
        os.set_blocking(self._pipes[5], False)
        self._lives = [_Life(number) for number in range(self.count)]
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._pipes:
            os.close(descriptor)

    def supervise(self) -> None:
        """Start the workers and keep them alive until they are to stop."""
        reports = WorkerReports(self.count, self.news)
        with self._signals():
            for life in self._lives:
                self._fork(life, None)
            while self._is_needed():
                self._wait(reports)
                self._reap(is_started=reports.is_ready)
                self._do_what_is_due()
        if self._failed:
            raise ClaudeProxyError(
                f"{self._failed}, so the proxy stopped",
                fix="see the messages above; restart claude-proxy, perhaps with --workers 1",
            )

    def _is_needed(self) -> bool:
        replaces = self._kill_at is None
        return any(life.pid is not None or (replaces and life.due) for life in self._lives)

    # --- what happens

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, _only_wake_up) for number in _HANDLED}
        signal.set_wakeup_fd(self._pipes[5], warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _wait(self, reports: WorkerReports) -> None:
        """Wait for the next report, signal or moment at which something is due."""
        reading_reports, reading_signals = self._pipes[2], self._pipes[4]
        awaited = [reading_reports, reading_signals]
        if self.until is not None:
            awaited.append(self.until)
        readable, _, _ = select.select(awaited, (), (), self._pause_s())
        if self.until in readable:
            self.until = None
            self._stop()
        if reading_reports in readable:
            reports.receive(os.read(reading_reports, 4096))
        if reading_signals in readable:
            for number in os.read(reading_signals, 4096):
                if number in _STOPS:
                    self._stop()
                elif number == signal.SIGHUP:
                    self._signal_all(signal.SIGHUP)

    def _pause_s(self) -> float | None:
        moments = [life.due for life in self._lives if life.due is not None]
        if self._kill_at is not None:
            moments = [self._kill_at]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _stop(self) -> None:
        now = time.monotonic()
        if self._kill_at is None:
            self._kill_at = now + self.grace_s + _KILL_AFTER_S
            self.news.stopping()
        else:
            self._kill_at = min(self._kill_at, now + _KILL_AT_ONCE_S)
        self._signal_all(signal.SIGTERM)

    def _signal_all(self, number: signal.Signals) -> None:
        for life in self._lives:
            if life.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(life.pid, number)

    def _reap(self, *, is_started: bool) -> None:
        for life in self._lives:
            if life.pid is None:
                continue
            pid, status = os.waitpid(life.pid, os.WNOHANG)
            if pid == 0:
                continue
            life.pid = None
            code = os.waitstatus_to_exitcode(status)
            if self._kill_at is None:
                self._ended(life, pid, code, is_started=is_started)
            elif code not in (0, -signal.SIGTERM, -signal.SIGKILL) and not self._failed:
                # SIGTERM: it came before the worker's handler was installed.
                self._failed = f"worker {life.number + 1} ended with code {code}"

    def _ended(self, life: _Life, pid: int, code: int, *, is_started: bool) -> None:
        """Have a worker replaced that ended unexpectedly; give up if that does not help."""
        now = time.monotonic()
        is_short = now - life.started_at < _SHORT_LIFE_S
        life.short_lives = life.short_lives + 1 if is_short else 0
        life.ended = f"worker {life.number + 1} (process {pid}) {_how(code)}"
        if not is_started:
            self._failed = f"a worker process ended unexpectedly (code {code})"
        elif life.short_lives >= _SHORT_LIVES:
            self._failed = f"{life.ended}, {life.short_lives} times in a row"
        if self._failed:
            self._stop()
            return
        pause_s = min(_FIRST_PAUSE_S * 2**life.short_lives, _LONGEST_PAUSE_S)
        life.due = now + pause_s
        logs.report([f"warning: {life.ended}; it is replaced"])

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        if self._kill_at is not None:
            if now >= self._kill_at:
                self._signal_all(signal.SIGKILL)
            return
        for life in self._lives:
            if life.due is not None and life.due <= now:
                life.due = None
                self._fork(life, life.ended)

    # --- forks

    def _fork(self, life: _Life, replaces: str | None) -> None:
        pid = os.fork()
        if pid == 0:
            parent_gone, report = self._pipes[0], self._pipes[3]
            signal.set_wakeup_fd(-1)
            for descriptor in self._pipes:
                if descriptor not in (parent_gone, report):
                    os.close(descriptor)
            _run_worker(WorkerSlot(life.number, parent_gone, report, replaces), self.work)
        life.pid, life.started_at = pid, time.monotonic()


def _run_worker(slot: WorkerSlot, work: Callable[[WorkerSlot], None]) -> None:
    """Do the work and exit, without returning to the parent's code."""
    code = 1
    try:
        # Ctrl-C reaches every process of the terminal; the parent forwards it once.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        work(slot)
        code = 0
    except ClaudeProxyError as error:
        logs.report(error.lines())
        code = error.exit_code
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _how(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}" if code else "ended"


def _only_wake_up(_: int, __: object) -> None:
    """Do nothing: the number has been written to the descriptor."""
