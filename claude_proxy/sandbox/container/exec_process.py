"""One more command in a running container: streams, terminal, signals, job control, exit code.

An engine's own `exec` passes no signal on, so a Ctrl-C would end it and leave the command running.
Here the command's process is found among the descendants of this one, and gets the signal itself.
With a terminal, keys go to the terminal inside, which makes its own signals.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import termios
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container.engine import Engine, explained
from claude_proxy.sandbox.container.held_errors import HeldErrors
from claude_proxy.sandbox.container.missing_programs import (
    NOT_EXECUTABLE,
    NOT_FOUND,
    NoProgramError,
)
from claude_proxy.sandbox.container.plan.model import EngineKind

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_WAITED_FOR = {*_FORWARDED, signal.SIGCHLD, signal.SIGTSTP}
_FAILED = 125  # podman-exec(1): the engine itself
_RETRY_S = 0.05
_PIECE = 64 * 1024
_PR_SET_CHILD_SUBREAPER = 36


def execute(engine: Engine, name: str, words: Sequence[str], *, terminal: bool) -> int:
    """Run a command in a container and return its exit code, or 128+n if signal n ended it.

    Raises NoProgramError if there is none, EngineError if the engine fails.
    """
    with _restored_terminal() if terminal else contextlib.nullcontext():
        return _Exec(engine, name, words, terminal=terminal).wait()


def argv_of(engine: Engine, name: str, words: Sequence[str], *, terminal: bool) -> list[str]:
    """Return the command line of the engine."""
    options = ["--interactive"]
    if terminal:
        options += ["--tty", *engine.attached_words()]
    return engine.words("exec", *options, name, *words)


class _Exec:
    """The engine's process, and the one inside that it stands for."""

    def __init__(self, engine: Engine, name: str, words: Sequence[str], *, terminal: bool) -> None:
        self._engine, self._words, self._terminal = engine, words, terminal
        self._waiting: list[int] = []  # signals for a command that has not started yet
        _adopt_orphans()
        reading, writing = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - no shell
                argv_of(engine, name, words, terminal=terminal),
                stdin=subprocess.PIPE if self._pumps else None,
                stderr=writing,
                env=engine.environ,
                # A key of the terminal reaches only this process, which passes it on.
                process_group=None if terminal else 0,
            )
        except OSError as error:
            raise explained(engine, "exec", str(error).encode()) from error
        finally:
            os.close(writing)
        # Before there is another thread, which a signal would otherwise reach.
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
        self._errors = HeldErrors(reading, quiet=False)
        if self._process.stdin is not None:
            pump = threading.Thread(target=_pump, args=(self._process.stdin,), daemon=True)
            pump.start()

    @property
    def _pumps(self) -> bool:
        """Whether this process reads a terminal for the engine's, which is in the background."""
        return not self._terminal and os.isatty(0)

    def wait(self) -> int:
        """Wait for the end of the command."""
        try:
            code = self._code()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED_FOR)
        if code in {_FAILED, NOT_EXECUTABLE, NOT_FOUND} and self._errors.own:
            raise self._explained(code)
        self._errors.finish()
        return code

    def _explained(self, code: int) -> ClaudeProxyError:
        said = self._errors.finish(said=False)
        if code == _FAILED:
            return explained(self._engine, "exec", said)
        return NoProgramError(self._words[0], code)

    def _code(self) -> int:
        while True:
            pid, status = os.waitpid(self._process.pid, os.WNOHANG | os.WUNTRACED)
            if pid and not os.WIFSTOPPED(status):
                code = os.waitstatus_to_exitcode(status)
                self._process.returncode = code
                return 128 - code if code < 0 else code
            if pid:
                os.kill(os.getpid(), signal.SIGSTOP)  # with it, as a shell expects
                continue
            self._waiting = [number for number in self._waiting if not self._send(number)]
            if self._waiting:
                told = signal.sigtimedwait(_WAITED_FOR, _RETRY_S)
            else:
                told = signal.sigwaitinfo(_WAITED_FOR)
            if told is not None:
                self._handle(told.si_signo)

    def _handle(self, number: int) -> None:
        if number in _FORWARDED:
            self._waiting.append(number)
        elif number == signal.SIGTSTP and not self._terminal:
            # Not SIGTSTP: the command is in a session of its own, where that has no effect.
            self._send(signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
            self._send(signal.SIGCONT)

    def _send(self, number: int) -> bool:
        """Send a signal to the command; return whether it is there."""
        inside = inner_process(os.getpid())
        if inside is not None:
            with contextlib.suppress(ProcessLookupError):
                _send_to_group(inside, number)
            return True
        if self._engine.kind is not EngineKind.PODMAN:
            # Its commands are children of a daemon's.
            self._process.send_signal(number)
            return True
        return False


def inner_process(root: int) -> int | None:
    """Return the first descendant of a process that is in another process namespace."""
    own, waiting = _namespace_of(os.getpid()), [root]
    while waiting:
        pid = waiting.pop()
        for child in _children_of(pid):
            namespace = _namespace_of(child)
            if namespace not in {own, None}:
                return child
            waiting.append(child)
    return None


def _send_to_group(pid: int, number: int) -> None:
    """Send to its group, as a terminal does; to it alone if that is not its own."""
    if os.getpgid(pid) == pid:
        os.killpg(pid, number)
    else:
        os.kill(pid, number)


def _children_of(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:  # noqa: PTH123 - as above
                found += map(int, file.read().split())
    return found


def _namespace_of(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/pid").st_ino  # noqa: PTH116 - of no path's file
    return None


def _adopt_orphans() -> None:
    """Become the parent of what the engine leaves, so that the command stays a descendant."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _pump(target: Any) -> None:
    """Copy standard input, which is a terminal, to the engine's."""
    with contextlib.suppress(OSError), contextlib.closing(target):
        while True:
            select.select([0], [], [])
            piece = os.read(0, _PIECE)
            if not piece:
                return
            os.write(target.fileno(), piece)


@contextlib.contextmanager
def _restored_terminal() -> Iterator[None]:
    """Leave the terminal as it was, however the engine's process ends."""
    kept = termios.tcgetattr(0)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, kept)
