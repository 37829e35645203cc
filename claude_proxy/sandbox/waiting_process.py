"""Process that is to become the proxy of a run, started before it is known what it has to do.

While the launcher reads options and policies, it imports what a proxy checks them with, on another
processor. It knows nothing yet, and gets its task, its sockets and the environment from its only
peer, the launcher; if that ends, so does the process. Law kept: secrets stay outside: it is started
with variables only that every process of the user may read.
"""

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from claude_proxy.sandbox.adopted_process import AdoptedProcess
    from claude_proxy.sandbox.start_patience import StartPatience

    type ChildProcess = subprocess.Popen[bytes] | AdoptedProcess

# Variables that a process may need at its start, and that do not hold secrets.
_HARMLESS = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_[A-Z]+|TZ|TMPDIR|XDG_[A-Z_]+"
    r"|D?Y?LD_[A-Z_]+|GLIBC_TUNABLES|MALLOC_[A-Z_]+|COVERAGE_[A-Z_]+"
    # What is imported early loads OpenSSL.
    r"|OPENSSL_(?:CONF|CONF_INCLUDE|ENGINES|MODULES)"
)
# Run with -I, so that neither the working directory nor PYTHONPATH can put another module first. It
# then takes over the launcher's module path, so that both processes run the same code.
_BOOT = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from claude_proxy.sandbox.proxy_process import run; run(int(sys.argv[1]))"
)

# What is not passed on, of the options before `--`, has no proxy of its own, or starts nothing.
_WITHOUT_PROXY = ("-h", "--help", "--dry-run", "--proxy", "--no-network", "--list-")

_ENDING = (signal.SIGTERM, signal.SIGHUP)

LENGTH_BYTES = 8  # of the task that follows, the most significant byte first


def harmless(environ: Mapping[str, str]) -> dict[str, str]:
    """Return only the variables that any process of the user may read."""
    return {name: value for name, value in environ.items() if _HARMLESS.fullmatch(name)}


class WaitingProcess:
    """A process that waits for a task."""

    def __init__(self, environ: Mapping[str, str], name: str) -> None:
        """Start it; OSError if that cannot be done. `name` is what a list of processes shows."""
        self._channel, theirs = socket.socketpair()
        path = [entry for entry in sys.path if entry]  # an empty one is the working directory
        with theirs:
            words = [sys.executable, "-I", "-c", _BOOT, str(theirs.fileno()), name, *path]
            try:
                self.process: ChildProcess = subprocess.Popen(  # noqa: S603 - our own program
                    words,
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # until there is a log
                    stderr=subprocess.DEVNULL,
                    cwd="/",  # so that it does not keep a file system busy
                    env=harmless(environ),
                    start_new_session=True,
                )
            except OSError:
                self._channel.close()
                raise

    def hand_over(self, task: bytes, descriptors: Sequence[int], patience: "StartPatience") -> bool:
        """Send it the task and the descriptors that it is to have; False if it has ended.

        TimeoutError: it does not read what is sent.
        """
        length = len(task).to_bytes(LENGTH_BYTES)
        rest = memoryview(task)
        self._channel.setblocking(False)  # a long task does not fit into the socket
        try:
            socket.send_fds(self._channel, [length], list(descriptors))
            while rest and patience.writable(self._channel.fileno(), self.process.pid):
                rest = rest[self._channel.send(rest) :]
        except OSError:
            return False
        if rest:
            raise TimeoutError
        self._channel.close()
        return True

    def leave(self) -> None:
        """Forget it: another process gives it its task."""
        self._channel.close()

    def end(self) -> None:
        """End it, which nobody has a task for."""
        self._channel.close()
        self.process.kill()
        self.process.wait()


class _Early:
    """The process that this launcher has started before it knew its task, if it has."""

    waiting: WaitingProcess | None = None
    is_starting = False
    ended_by: int | None = None  # the signal that arrived meanwhile


def expect(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Start a process for the run of these arguments, if it looks as if there will be one."""
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if sys.platform != "linux" or not arguments:
        return
    if any(word.startswith(_WITHOUT_PROXY) for word in words):
        return
    discard()
    _handle_signals()
    _Early.is_starting = True
    try:
        _Early.waiting = WaitingProcess(environ, "claude-proxy-run")
    except OSError:
        pass  # the run tries it again, and reports it
    finally:
        _Early.is_starting = False
    if _Early.ended_by is not None:
        _end_launcher(_Early.ended_by)


def take() -> WaitingProcess | None:
    """Return the process that was started early, once."""
    waiting, _Early.waiting = _Early.waiting, None
    for number in _ENDING:
        if signal.getsignal(number) is _on_signal:
            signal.signal(number, signal.SIG_DFL)
    return waiting


def adopt() -> None:
    """Let a child of the launcher have the process that was started early, if there is one."""
    from claude_proxy.sandbox.adopted_process import AdoptedProcess  # noqa: PLC0415 - no run's

    if _Early.waiting is not None:
        try:
            _Early.waiting.process = AdoptedProcess(_Early.waiting.process.pid)
        except ProcessLookupError:  # it has ended; another one is started when there is a task
            leave()


def leave() -> None:
    """Leave the process that was started early to a child that has adopted it."""
    waiting = take()
    if waiting is not None:
        waiting.leave()


def _handle_signals() -> None:
    """Let no signal end the launcher alone: a process that is stopped does not see that it ends."""
    with contextlib.suppress(ValueError):  # of a thread that has no signals
        for number in _ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _on_signal)


def _on_signal(number: int, _frame: FrameType | None) -> None:
    if _Early.is_starting:
        _Early.ended_by = number
    else:
        _end_launcher(number)


def _end_launcher(number: int) -> None:
    """End the process that was started early, and this one by the signal."""
    discard()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def discard() -> None:
    """End the process that was started early, if nobody has taken it."""
    waiting = take()
    if waiting is not None:
        waiting.end()
