"""bwrap process: started from a plan, with COMMAND held back until everything is ready.

Law kept: no quiet downgrade: COMMAND starts when bwrap reads one byte, which only the launcher
writes. bwrap holds both ends of that pipe, because to it an end of file is the same as the byte: it
would start COMMAND when the launcher dies. A watchdog kills what a dead launcher leaves behind.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import own_programs
from claude_proxy.sandbox.plan.model import (
    BLOCK,
    INFO,
    SECCOMP,
    ResourceLimits,
    SandboxPlan,
)

type Stream = int | IO[bytes] | None  # an argument of Popen; None: the launcher's stream
type StandardStreams = tuple[Stream, Stream, Stream]

# By its name, as it would take milliseconds to import.
_WATCHDOG = "claude_proxy.sandbox.bubblewrap.watchdog"

_START_PATIENCE_S = 30.0
_END_PATIENCE_S = 5.0
_INFO_LIMIT = 4096
_MESSAGE_LIMIT = 128


class Bubblewrap:
    """A sandbox that has been started; COMMAND starts with `release`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        init: int,
        start_pipe: int,
        watchdog: "Watchdog",
        limits: ResourceLimits,
    ) -> None:
        self.process = process
        self.init = init  # the first process of the sandbox; all others end with it
        self._init_descriptor = os.pidfd_open(init)
        self._start_pipe: int | None = start_pipe
        self.watchdog = watchdog
        try:
            watchdog.watch(self._init_descriptor, init, limits)
        except BaseException:
            os.close(self._init_descriptor)
            raise

    @classmethod
    def start(
        cls,
        plan: SandboxPlan,
        filter_: bytes | None,
        streams: StandardStreams = (None, None, None),
        prepare: Callable[[], None] | None = None,
        held: "HeldStart | None" = None,
    ) -> Self:
        """Start bwrap and return when its namespaces exist.

        `prepare` is called in the new process before it becomes bwrap; if it fails, this raises
        subprocess.SubprocessError and nothing is started. `held` was made before, if given.
        """
        with ExitStack() as stack:
            heard, info = os.pipe()
            stack.callback(os.close, heard)
            held = held or stack.enter_context(HeldStart())
            theirs = {INFO: info, BLOCK: held.their_end}
            undo = stack.enter_context(ExitStack())
            with ExitStack() as closing:
                closing.callback(os.close, info)
                contents = dict(plan.files)
                if filter_ is not None:
                    contents[SECCOMP] = filter_
                theirs |= {
                    name: closing.enter_context(_memory(data)) for name, data in contents.items()
                }
                options = closing.enter_context(_memory(b""))
                data, words = plan.start(theirs, options)
                _fill(options, data)
                process = _spawn(plan, words, (*theirs.values(), options), streams, prepare)
            undo.callback(_abandon, process, held.pipe)
            held.close_their_end()
            try:
                init = _init_of(process, heard)
                started = cls(process, init, held.pipe, held.watchdog, plan.limits)
            except ProcessLookupError:  # the process that it named is gone
                raise failed(process) from None
            undo.pop_all()
            held.hand_over()
            return started

    def release(self) -> None:
        """Let COMMAND start."""
        if self._start_pipe is not None:
            pipe, self._start_pipe = self._start_pipe, None
            os.write(pipe, b"x")
            os.close(pipe)

    @property
    def alive(self) -> bool:
        """Whether bwrap is running."""
        return self.process.poll() is None

    @property
    def has_ended(self) -> bool:
        """Whether the first process of the sandbox has ended, and so all of them."""
        return bool(select.select([self._init_descriptor], [], [], 0)[0])

    def command(self) -> int | None:
        """Return the process id of COMMAND on the host; None if it is not running."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            path = Path(f"/proc/{self.init}/task/{self.init}/children")
            return int(path.read_text(encoding="ascii").split()[0])
        return None

    def end(self) -> None:
        """Kill all processes of the sandbox, and wait until it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._init_descriptor, signal.SIGKILL)
        if self.process.returncode is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_PATIENCE_S)
            if self.process.returncode is None:
                self.process.kill()
                self.process.wait()
        # bwrap may end before the sandbox, which keeps its mounts busy.
        select.select([self._init_descriptor], [], [], _END_PATIENCE_S)

    def close(self) -> None:
        """Kill the sandbox if it is alive, and release what belongs to it."""
        self.end()
        _close_streams(self.process)
        os.close(self._init_descriptor)
        if self._start_pipe is not None:
            os.close(self._start_pipe)
            self._start_pipe = None
        self.watchdog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class HeldStart:
    """The pipe that holds COMMAND back, and the watchdog: it starts while the run is planned."""

    def __init__(self) -> None:
        waiting, self.pipe = os.pipe()
        self._is_ours = True
        try:
            self.their_end = os.open(f"/proc/self/fd/{waiting}", os.O_RDWR)
        except BaseException:
            os.close(self.pipe)
            raise
        finally:
            os.close(waiting)
        self._has_their_end = True
        try:
            self.watchdog = Watchdog(self.their_end)
        except BaseException:
            self._close_pipe()
            raise

    def close_their_end(self) -> None:
        """Leave the end that COMMAND waits on to bwrap, which has it from now on."""
        if self._has_their_end:
            self._has_their_end = False
            os.close(self.their_end)

    def hand_over(self) -> None:
        """Leave the pipe and the watchdog to the sandbox that was started."""
        self._is_ours = False

    def _close_pipe(self) -> None:
        self.close_their_end()
        os.close(self.pipe)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_ours:
            # In this order: once its channel is closed, the watchdog kills every process that has
            # the pipe open.
            self._close_pipe()
            self.watchdog.close()


class Watchdog:
    """The process that kills the sandbox when the launcher is gone."""

    def __init__(self, start_pipe: int) -> None:
        self.limits_processes = False
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = own_programs.words_of(_WATCHDOG, str(theirs.fileno()), str(start_pipe))
        with theirs:
            try:
                self.process = subprocess.Popen(  # noqa: S603 - our own program
                    words,
                    pass_fds=(theirs.fileno(), start_pipe),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={},
                    start_new_session=True,  # so that Ctrl-C in the terminal does not reach it
                )
            except OSError as error:
                self._channel.close()
                raise _no_watchdog() from error

    def watch(self, init: int, pid: int, limits: ResourceLimits) -> None:
        """Send it the descriptor of the sandbox's first process, and wait for its answer."""
        words = b"init %d %d %d" % (pid, limits.processes or 0, limits.memory or 0)
        try:
            socket.send_fds(self._channel, [words], [init])
            self._channel.settimeout(_START_PATIENCE_S)
            heard = self._channel.recv(16)
        except OSError:
            heard = b""
        if heard not in {b"seen", b"unlimited"}:
            raise _no_watchdog()
        self.limits_processes = heard == b"seen"

    def killed(self) -> Iterator[tuple[str, int]]:
        """Yield the name and the size of each process that used too much memory."""
        self._channel.setblocking(False)
        with contextlib.suppress(OSError, ValueError):
            while heard := self._channel.recv(_MESSAGE_LIMIT):
                size, _, name = heard.decode("utf-8", "replace").partition(" ")
                yield name, int(size)

    def close(self) -> None:
        """Close the channel and wait for the watchdog, which kills the sandbox if it is alive."""
        self._channel.close()
        try:
            self.process.wait(_END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _no_watchdog() -> ClaudeProxyError:
    return ClaudeProxyError(
        "the watchdog of the sandbox did not start; nothing was run",
        where=_WATCHDOG,
        fix="free some memory and processes, and try again",
    )


def _spawn(
    plan: SandboxPlan,
    words: list[str],
    descriptors: tuple[int, ...],
    streams: StandardStreams,
    prepare: Callable[[], None] | None,
) -> subprocess.Popen[bytes]:
    stdin, stdout, stderr = streams
    # Ctrl-C would kill bwrap, and the sandbox with it, although COMMAND may handle SIGINT. Ignored
    # signals are inherited; `env --default-signal` resets them for COMMAND, if `env` has that
    # option. If it does not, Ctrl-C must end everything.
    ignored = (signal.SIGINT, signal.SIGQUIT) if resets_signals(plan) else ()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        return subprocess.Popen(  # noqa: S603 - bwrap, with the arguments of a plan
            words,
            pass_fds=descriptors,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=_bare(),
            preexec_fn=prepare,  # noqa: PLW1509 - the launcher has no threads
        )
    except OSError as error:
        raise ClaudeProxyError(
            f"bwrap cannot be started: {(error.strerror or '').lower()}",
            where=str(plan.bwrap),
            fix="install it again (Debian, Ubuntu: apt install bubblewrap)",
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def resets_signals(plan: SandboxPlan) -> bool:
    """Tell whether COMMAND is started with default handlers for the signals of the terminal."""
    return any(word.startswith("--default-signal") for word in plan.command[1:2])


def _bare() -> Mapping[str, str]:
    # The variables of the sandbox are in the plan; bwrap needs none, and processes inside can
    # read its environment in /proc.
    return {}


def _init_of(process: subprocess.Popen[bytes], heard: int) -> int:
    """Return the id of the sandbox's first process, which bwrap reports."""
    said = b""
    deadline = time.monotonic() + _START_PATIENCE_S
    while b"}" not in said and len(said) < _INFO_LIMIT:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([heard], [], [], left)[0]:
            break
        piece = os.read(heard, _INFO_LIMIT)
        if not piece:
            break
        said += piece
    try:
        return int(json.loads(said)["child-pid"])
    except (ValueError, KeyError, TypeError):
        raise failed(process) from None


class SandboxFailedError(ClaudeProxyError):
    """bwrap has ended before COMMAND was started."""


def failed(process: subprocess.Popen[bytes]) -> SandboxFailedError:
    """Return the error for a bwrap that ended before COMMAND was started."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
    code = process.returncode
    return SandboxFailedError(
        f"bwrap cannot create the sandbox (exit code {code}); nothing was run",
        where="bwrap; its message is above",
        fix="run `claude-proxy doctor`, which finds what is missing",
    )


def _abandon(process: subprocess.Popen[bytes], start_pipe: int) -> None:
    """Kill a bwrap that is not used, and everything that it has started.

    The first process inside ignores SIGTERM, is not tied to its parent yet, and would wait forever.
    The watchdog may be what has failed, so this does not rely on it.
    """
    from claude_proxy.sandbox.bubblewrap import watchdog  # noqa: PLC0415 - after a failure

    process.kill()
    process.wait()
    _close_streams(process)
    while found := watchdog.holders(start_pipe):
        for pid in found:
            watchdog.end_holder(pid, start_pipe)


def _close_streams(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):  # buffered data that has no reader any more
                stream.close()


@contextlib.contextmanager
def _memory(data: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("claude-proxy", os.MFD_CLOEXEC)
    try:
        _fill(descriptor, data)
        yield descriptor
    finally:
        os.close(descriptor)


def _fill(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
