"""Starts bwrap as a plan says, holds its COMMAND back until all is ready, and lets it go.

Law 11: COMMAND is started by one byte that only the launcher writes. The pipe it comes by is held
open at both ends by bwrap itself, so that the launcher's death is not mistaken for that byte:
bwrap takes the end of the pipe for it. And a guard ends what a dead launcher leaves.
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
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.bubblewrap import watchdog
from claude_proxy.sandbox.plan.model import BLOCK, INFO, SECCOMP, SandboxPlan

type Stream = int | IO[bytes] | None  # as subprocess takes it; None: the launcher's own
type StandardStreams = tuple[Stream, Stream, Stream]

_START_PATIENCE_S = 30.0
_END_PATIENCE_S = 5.0
_INFO_LIMIT = 4096


class Bubblewrap:
    """A sandbox that has been started; until `release` its COMMAND has not."""

    def __init__(
        self, process: subprocess.Popen[bytes], init: int, gate: int, watch: "Watchdog"
    ) -> None:
        self.process = process
        self.init = init  # the first process of the sandbox: with it, all of them end
        self._init_descriptor = os.pidfd_open(init)
        self._gate: int | None = gate
        self.guard = watch
        watch.tell(self._init_descriptor)

    @classmethod
    def start(
        cls, plan: SandboxPlan, filter_: bytes | None, streams: StandardStreams = (None, None, None)
    ) -> Self:
        """Start bwrap and return when its namespaces are there."""
        with ExitStack() as stack:
            heard, info = os.pipe()
            stack.callback(os.close, heard)
            waiting, gate = os.pipe()
            # Undone last: a guard that is let go of ends whoever has the pipe, as we do until then.
            guarding = stack.enter_context(ExitStack())
            undo = stack.enter_context(ExitStack())
            undo.callback(os.close, gate)
            both = os.open(f"/proc/self/fd/{waiting}", os.O_RDWR)
            os.close(waiting)
            theirs = {INFO: info, BLOCK: both}
            with ExitStack() as closing:
                for descriptor in theirs.values():
                    closing.callback(os.close, descriptor)
                watch = Watchdog(both)
                guarding.callback(watch.close)
                contents = dict(plan.files)
                if filter_ is not None:
                    contents[SECCOMP] = filter_
                theirs |= {
                    name: closing.enter_context(_memory(data)) for name, data in contents.items()
                }
                options = closing.enter_context(_memory(b""))
                data, words = plan.start(theirs, options)
                _fill(options, data)
                process = _spawn(plan, words, (*theirs.values(), options), streams)
            undo.callback(_abandon, process)
            try:
                bubble = cls(process, _init_of(process, heard), gate, watch)
            except ProcessLookupError:  # it has told of a process that is gone already
                raise failed(process) from None
            undo.pop_all()
            guarding.pop_all()
            return bubble

    def release(self) -> None:
        """Let COMMAND start."""
        if self._gate is not None:
            gate, self._gate = self._gate, None
            os.write(gate, b"x")
            os.close(gate)

    @property
    def alive(self) -> bool:
        """Whether bwrap still waits for its sandbox."""
        return self.process.poll() is None

    def command(self) -> int | None:
        """Return the number of COMMAND's process, as it is outside; None: it is not there."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            path = Path(f"/proc/{self.init}/task/{self.init}/children")
            return int(path.read_text(encoding="ascii").split()[0])
        return None

    def end(self) -> None:
        """End the sandbox with all that is in it, and wait until it has gone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._init_descriptor, signal.SIGKILL)
        if self.process.returncode is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_PATIENCE_S)
            if self.process.returncode is None:
                self.process.kill()
                self.process.wait()
        # bwrap may go before its sandbox has: what is left of it holds directories busy.
        select.select([self._init_descriptor], [], [], _END_PATIENCE_S)

    def close(self) -> None:
        """End the sandbox if it has not ended, and let go of what belongs to it."""
        self.end()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was not written has nobody to read it
                    stream.close()
        os.close(self._init_descriptor)
        if self._gate is not None:
            os.close(self._gate)
            self._gate = None
        self.guard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Watchdog:
    """The process that ends the sandbox when this one cannot."""

    def __init__(self, gate: int) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = [sys.executable, "-I", "-S", watchdog.__file__, str(theirs.fileno()), str(gate)]
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                words,
                pass_fds=(theirs.fileno(), gate),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                start_new_session=True,  # no key pressed in the terminal reaches it
            )

    def tell(self, init: int) -> None:
        """Tell it by what descriptor it knows the sandbox, and wait until it does."""
        try:
            socket.send_fds(self._channel, [b"init"], [init])
            self._channel.settimeout(_START_PATIENCE_S)
            heard = self._channel.recv(16)
        except OSError:
            heard = b""
        if heard != b"seen":
            raise ClaudeProxyError(
                "the process that guards the sandbox does not start; nothing was run",
                where=watchdog.__file__,
                fix="free some memory and processes, and try again",
            )

    def close(self) -> None:
        """Let it end, which it does with the sandbox or with this channel."""
        self._channel.close()
        self.process.wait()


def _spawn(
    plan: SandboxPlan, words: list[str], descriptors: tuple[int, ...], streams: StandardStreams
) -> subprocess.Popen[bytes]:
    stdin, stdout, stderr = streams
    # bwrap would die of Ctrl-C, and the sandbox with it, although COMMAND may have its own use for
    # that key. Being ignored is inherited; COMMAND gets the default back by `env`, if there is an
    # `env` that can give it. Where there is none, Ctrl-C has to end all.
    ignored = (signal.SIGINT, signal.SIGQUIT) if resets_signals(plan) else ()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        return subprocess.Popen(  # noqa: S603 - bwrap, with the words of a plan
            words, pass_fds=descriptors, stdin=stdin, stdout=stdout, stderr=stderr, env=_bare()
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
    """Tell whether COMMAND is started with the signals of the terminal set to their defaults."""
    return any(word.startswith("--default-signal") for word in plan.command[1:2])


def _bare() -> Mapping[str, str]:
    # What the sandbox gets is in the plan; bwrap itself needs nothing, and an environment can be
    # read in /proc by what runs inside.
    return {}


def _init_of(process: subprocess.Popen[bytes], heard: int) -> int:
    """Return the first process of the sandbox, as bwrap tells."""
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


def failed(process: subprocess.Popen[bytes]) -> ClaudeProxyError:
    """Return the error that says that bwrap has ended too early."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
    code = process.returncode
    return ClaudeProxyError(
        f"bwrap cannot make the sandbox (exit code {code}); nothing was run",
        where="bwrap, whose own words are above",
        fix="run `claude-proxy doctor`, which says what is missing",
    )


def _abandon(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


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
