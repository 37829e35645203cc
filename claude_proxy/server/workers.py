"""Worker processes: several proxy processes on one port, for machines with many agents.

One process uses one core. The parent only binds, forks and waits: it opens nothing else and serves
no client. Keeps "no quiet downgrade": the workers are one proxy. When one ends unexpectedly they
all end, and a worker whose parent is gone stops by itself.
"""

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.system.sd_notify import StateListener, WorkerReports

# Linux spreads new connections over all sockets bound with SO_REUSEPORT; other systems do not.
CAN_SPREAD = sys.platform == "linux"

_FORWARDED = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """Which of the workers this process is, and how it talks to the parent."""

    number: int = 0
    parent_gone: int | None = None  # a descriptor that becomes readable when the parent ends
    report: int | None = None  # a pipe to the parent for this worker's state

    @property
    def speaks(self) -> bool:
        """Whether this worker prints and records messages about the whole proxy."""
        return self.number == 0


def run(
    count: int,
    work: Callable[[WorkerSlot], None],
    news: StateListener,
    *,
    forked: Callable[[], None],
    until: int | None = None,
) -> None:
    """Call `work` in `count` child processes; return when all have ended successfully.

    The parent calls `forked` after the forks, reports to `news` what is true of all workers, and
    stops them when the descriptor `until` closes. Raises ClaudeProxyError if a worker failed.
    """
    # Nothing is ever written: it closes when the parent ends, which the workers notice.
    reading, writing = os.pipe()
    reading_reports, writing_reports = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    children: set[int] = set()
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.close(reading_reports)
            _run_worker(WorkerSlot(number, reading, writing_reports), work)
        children.add(pid)
    os.close(reading)
    os.close(writing_reports)
    forked()
    # After the forks: forking a process with threads is unsafe.
    Thread(
        target=_receive, args=(reading_reports, until, WorkerReports(count, news)), daemon=True
    ).start()
    try:
        _supervise(children, news)
    finally:
        os.close(writing)


def _run_worker(slot: WorkerSlot, work: Callable[[WorkerSlot], None]) -> None:
    """Do the work and exit, without returning to the parent's code."""
    code = 1
    try:
        # Ctrl-C reaches every process of the terminal; the parent forwards it once.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        work(slot)
        code = 0
    except ClaudeProxyError as error:
        sys.stderr.write("".join(f"claude-proxy: {line}\n" for line in error.lines()))
        code = error.exit_code
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _receive(reading_reports: int, until: int | None, reports: WorkerReports) -> None:
    """Read the workers' reports, and stop them all when `until` closes."""
    awaited = [reading_reports] if until is None else [reading_reports, until]
    while awaited:
        readable, _, _ = select.select(awaited, (), ())
        if until in readable:
            awaited.remove(until)
            os.kill(os.getpid(), signal.SIGTERM)
        if reading_reports in readable:
            data = os.read(reading_reports, 4096)
            reports.receive(data)
            if not data:
                return  # the last worker has ended


def _supervise(children: set[int], news: StateListener) -> None:
    stopping = False

    def forward(number: int, _: object) -> None:
        nonlocal stopping
        forwarded = signal.SIGTERM if number == signal.SIGINT else signal.Signals(number)
        if forwarded is signal.SIGTERM and not stopping:
            stopping = True
            news.stopping()
        _signal_all(children, forwarded)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, *_FORWARDED)}
    failed = 0
    try:
        while children:
            pid, status = os.wait()
            children.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            if stopping and code == -signal.SIGTERM:
                code = 0  # it received the signal before its handler was installed
            if code != 0 or not stopping:
                failed = failed or code or 1
                _signal_all(children, signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if failed:
        raise ClaudeProxyError(
            f"a worker process ended unexpectedly (code {failed}), so the proxy stopped",
            fix="see the messages above; restart claude-proxy, perhaps with --workers 1",
        )


def _signal_all(children: set[int], number: signal.Signals) -> None:
    for pid in list(children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
