"""Runs several proxy processes on one port, for machines where many agents work at once.

One process serves one core. The parent only binds, forks and waits: it opens nothing else and
serves nobody. Law 11: the workers are one proxy; when one ends unasked, all of it ends, and
a worker whose parent is gone stops by itself.
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
from claude_proxy.system.sd_notify import News, WorkersHeard

# Linux spreads new connections over all sockets bound with it; elsewhere the last one gets all.
CAN_SPREAD = sys.platform == "linux"

_FORWARDED = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the workers this process is."""

    number: int = 0
    parent_gone: int | None = None  # a descriptor that becomes readable when the parent is gone
    report: int | None = None  # a pipe on which the parent hears how this worker is doing

    @property
    def speaks(self) -> bool:
        """Whether this one says what is true of all of them."""
        return self.number == 0


def run(
    count: int,
    work: Callable[[Place], None],
    news: News,
    *,
    forked: Callable[[], None],
    until: int | None = None,
) -> None:
    """Call `work` in `count` processes of their own; return when all have ended well.

    The parent calls `forked` when it has made them, passes on to `news` what holds for all, and
    stops them when `until` ends. Raises ClaudeProxyError if one of them did not end well.
    """
    # Nothing is ever written: the end of the parent closes it, and the workers see that.
    reading, writing = os.pipe()
    hearing, telling = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    children: set[int] = set()
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.close(hearing)
            _become_worker(Place(number, reading, telling), work)
        children.add(pid)
    os.close(reading)
    os.close(telling)
    forked()
    # Not before: a process with threads had better not fork.
    Thread(target=_hear, args=(hearing, until, WorkersHeard(count, news)), daemon=True).start()
    try:
        _supervise(children, news)
    finally:
        os.close(writing)


def _become_worker(place: Place, work: Callable[[Place], None]) -> None:
    """Do the work and leave; nothing of the parent's stack may run in a child."""
    code = 1
    try:
        # Ctrl-C reaches every process of the terminal; the parent passes it on once.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        work(place)
        code = 0
    except ClaudeProxyError as error:
        sys.stderr.write("".join(f"claude-proxy: {line}\n" for line in error.lines()))
        code = error.exit_code
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _hear(hearing: int, until: int | None, heard: WorkersHeard) -> None:
    """Take in what the workers tell, and stop them all when whoever started us is gone."""
    awaited = [hearing] if until is None else [hearing, until]
    while awaited:
        readable, _, _ = select.select(awaited, (), ())
        if until in readable:
            awaited.remove(until)
            os.kill(os.getpid(), signal.SIGTERM)
        if hearing in readable:
            words = os.read(hearing, 4096)
            heard.hear(words)
            if not words:
                return  # the last worker is gone


def _supervise(children: set[int], news: News) -> None:
    stopping = False

    def forward(number: int, _: object) -> None:
        nonlocal stopping
        told = signal.SIGTERM if number == signal.SIGINT else signal.Signals(number)
        if told is signal.SIGTERM and not stopping:
            stopping = True
            news.stopping()
        _tell(children, told)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, *_FORWARDED)}
    failed = 0
    try:
        while children:
            pid, status = os.wait()
            children.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            if stopping and code == -signal.SIGTERM:
                code = 0  # told to stop before it had begun to listen for that
            if code != 0 or not stopping:
                failed = failed or code or 1
                _tell(children, signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if failed:
        raise ClaudeProxyError(
            f"a worker process ended unexpectedly (code {failed}), so the proxy stopped",
            fix="see the lines above; start claude-proxy again, perhaps with --workers 1",
        )


def _tell(children: set[int], number: signal.Signals) -> None:
    for pid in list(children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
