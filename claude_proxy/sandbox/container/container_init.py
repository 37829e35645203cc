"""First process of a container whose engine lets nobody in: the relay, and CMD as its child.

A program, run by its path with the host's Python, which is lent read-only, so that nothing has to
be in the image. It listens before CMD starts, passes every signal on that can be, collects the
processes that nobody else waits for, and ends with CMD, by its exit code. For each client it
connects to the socket that is mounted, so that works again as soon as the outside is back.
"""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

if not __package__:  # run by its path: add the package's directory, after the standard library
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))  # noqa: PTH100, PTH118, PTH120

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.relay import relay

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # exit codes of a shell

# Neither those that nobody can handle, nor those that are about this process itself.
_OWN = frozenset(
    {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU}
    | {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP}
    | {signal.SIGPIPE, signal.SIGSYS, signal.SIGPROF, signal.SIGVTALRM, signal.SIGALRM}
)
FORWARDED = tuple(number for number in sorted(signal.valid_signals()) if number not in _OWN)


class Command(relay.ChildProcess):
    """CMD, and with it every process whose parent has ended."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended: int | None = None

    def poll(self) -> int | None:
        """Collect all processes that have ended; return CMD's exit code once it has."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self._pid:
                    self._ended = os.waitstatus_to_exitcode(status)
        return self._ended

    def send_signal(self, number: int) -> None:
        """Pass a signal on to CMD's group, as a terminal would."""
        if self._ended is None:
            with suppress(ProcessLookupError):
                os.killpg(self._pid, number)


def start(words: Sequence[str]) -> Command:
    """Start CMD in a process group of its own, in the foreground of a terminal if there is one."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(words, writing)
    os.close(writing)
    with suppress(OSError):  # the child does the same; whoever is first
        os.setpgid(pid, pid)
    with os.fdopen(reading, "rb") as failure:
        said = failure.read()
    if said:
        os.waitpid(pid, 0)
        number, _, text = said.decode("utf-8", "replace").partition(" ")
        raise NotStartedError(text, words[0], int(number))
    return Command(pid)


def _become(words: Sequence[str], failure: int) -> None:
    """Turn the child into CMD; what stops that is written to the pipe."""
    try:
        os.setpgid(0, 0)
        if os.isatty(0):
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            with suppress(OSError):
                os.tcsetpgrp(0, os.getpid())
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals():
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvp(words[0], [*words])  # noqa: S606 - no shell
    except OSError as error:
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        os.write(failure, f"{code} {(error.strerror or '').lower()}".encode())
    except BaseException as error:  # noqa: BLE001 - the child ends here
        os.write(failure, f"{NOT_EXECUTABLE} {error}".encode())
    finally:
        os._exit(NOT_EXECUTABLE)


class NotStartedError(ClaudeProxyError):
    """CMD cannot be started."""

    def __init__(self, reason: str, program: str, exit_code: int) -> None:
        super().__init__(
            f'cannot start "{program}" ({reason})',
            where="CMD, in the container",
            fix="name a program that is in the image",
        )
        self.exit_code = exit_code


def run(words: list[str]) -> int:
    """Run `[options of the relay] -- CMD [ARG ...]`; return CMD's exit code."""
    try:
        at = words.index("--")
        options = relay.parse(words[:at])
        options.quiet = True
        return relay.serve(options, start=lambda _: start(words[at + 1 :]), forwarded=FORWARDED)
    except ClaudeProxyError as error:
        os.write(2, ("\n".join(f"claude-proxy: {line}" for line in error.lines()) + "\n").encode())
        return error.exit_code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
