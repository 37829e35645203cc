"""Runs several proxy processes on one port, for machines where many agents work at once.

One process serves one core. The parent only binds, forks and waits: it opens nothing else and
serves nobody. Law 11: the workers are one proxy; when one ends unasked, all of it ends, and
a worker whose parent is gone stops by itself.
"""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

from claude_proxy.errors import ClaudeProxyError

# Linux spreads new connections over all sockets bound with it; elsewhere the last one gets all.
CAN_SPREAD = sys.platform == "linux"

_FORWARDED = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the workers this process is."""

    number: int = 0
    parent_gone: int | None = None  # a descriptor that becomes readable when the parent is gone

    @property
    def speaks(self) -> bool:
        """Whether this one says what is true of all of them."""
        return self.number == 0


def run(sockets: list[socket.socket], work: Callable[[socket.socket, Place], None]) -> None:
    """Call `work` with each socket in a process of its own; return when all have ended well.

    Raises ClaudeProxyError if one of them did not.
    """
    # Nothing is ever written: the end of the parent closes it, and the workers see that.
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    children: set[int] = set()
    for number, sock in enumerate(sockets):
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            _become_worker(sockets, sock, Place(number, reading), work)
        children.add(pid)
    os.close(reading)
    for sock in sockets:
        sock.close()
    try:
        _supervise(children)
    finally:
        os.close(writing)


def _become_worker(
    sockets: list[socket.socket],
    own: socket.socket,
    place: Place,
    work: Callable[[socket.socket, Place], None],
) -> None:
    """Do the work and leave; nothing of the parent's stack may run in a child."""
    code = 1
    try:
        # Ctrl-C reaches every process of the terminal; the parent passes it on once.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for sock in sockets:
            if sock is not own:
                sock.close()
        work(own, place)
        code = 0
    except ClaudeProxyError as error:
        sys.stderr.write("".join(f"claude-proxy: {line}\n" for line in error.lines()))
        code = error.exit_code
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _supervise(children: set[int]) -> None:
    stopping = False

    def forward(number: int, _: object) -> None:
        nonlocal stopping
        told = signal.SIGTERM if number == signal.SIGINT else signal.Signals(number)
        stopping = stopping or told is signal.SIGTERM
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
            mend="see the lines above; start claude-proxy again, perhaps with --workers 1",
        )


def _tell(children: set[int], number: signal.Signals) -> None:
    for pid in list(children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
