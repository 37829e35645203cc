"""The engine's process that CMD is attached to: streams, signals, job control, exit code.

It has the terminal and the streams of the launcher, and its process group, so that what the
terminal sends reaches it. A signal that is sent to the launcher alone is passed on. Only its
errors go through the launcher, which turns those of the engine itself into its own.
"""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable, Sequence

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container.engine import Engine, explained
from claude_proxy.sandbox.container.enter import HookCall, HookFiles
from claude_proxy.sandbox.container.held_errors import HeldErrors
from claude_proxy.sandbox.container.keeper_link import KeeperChannel
from claude_proxy.sandbox.container.missing_programs import (
    NOT_EXECUTABLE,
    NOT_FOUND,
    NoProgramError,
)

type Reporter = Callable[[str], None]

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_WAITED_FOR = {*_FORWARDED, signal.SIGCHLD, signal.SIGTSTP}
_SENT_BY_KERNEL = 0x80  # siginfo_t.si_code: a key of the terminal, which the whole group gets
_OF_ENGINE = range(125, 128)  # podman-run(1): its own errors, and commands that cannot be started
# How runc and crun name what they cannot execute; other failures have these exit codes, too.
_PROGRAM = lazy_pattern(
    r"exec:? [\"'`]([^\"'`]+)[\"'`]|executable (?:file )?[\"'`]([^\"'`]+)[\"'`]"
)
_GIVE_UP_S = 30.0
_SAY_WHY_S = 10.0


class Attached:
    """The engine's process, and the keeper that lets CMD start."""

    def __init__(
        self,
        engine: Engine,
        argv: Sequence[str],
        keeper: KeeperChannel,
        hook: HookFiles | None,
        *,
        quiet: bool,
    ) -> None:
        self._engine, self._keeper, self._hook = engine, keeper, hook
        self._ended_by = 0  # a signal that CMD has no handler for
        null = subprocess.DEVNULL if quiet else None
        reading, writing = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - no shell
                argv, stdin=null, stdout=null, stderr=writing, env=engine.environ
            )
        finally:
            os.close(writing)
        # Before there is another thread, which a signal would otherwise reach.
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
        self._errors = HeldErrors(reading, quiet=quiet)

    def wait_until_started(self, say: Reporter) -> None:
        """Wait until CMD may run; raise the error of the keeper or of the engine instead."""
        ended = os.pidfd_open(self._process.pid)
        try:
            ready, _, _ = select.select([self._keeper.fileno(), ended], [], [])
            if self._keeper.fileno() not in ready:
                self._process.wait()
                error = self._explained()
                # A hook that failed was told to by the keeper, which says why at its end.
                why = _SAY_WHY_S if any("hook" in line for line in error.lines()) else 0.0
                if not select.select([self._keeper.fileno()], [], [], why)[0]:
                    raise error
            self._keeper.wait_for("started", say)
        except ClaudeProxyError:
            self._give_up()
            raise
        finally:
            os.close(ended)

    def wait(
        self,
        has_run: Callable[[], bool | None],
        end_deaf: Callable[[int], bool] = lambda _: False,
    ) -> int:
        """Wait for the end of CMD and return its exit code, or 128+n for a signal n.

        Raises the error of the engine if CMD could not be started; `has_run` tells whether it was,
        or None if the container is gone: then only what names a program is taken for an error.
        `end_deaf` ends a CMD to which a signal does nothing, and tells whether it did.
        """
        code = self._code(end_deaf)
        if code in _OF_ENGINE and self._errors.own and not (ran := has_run()):
            error = self._explanation()
            if ran is not None or isinstance(error, NoProgramError):
                self._errors.finish(said=False)
                raise error
        self._errors.finish()
        return code

    def close(self) -> None:
        """Let signals arrive as before; more of what has ended CMD have nothing left to end."""
        while self._ended_by and signal.sigtimedwait(_FORWARDED, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED_FOR)

    def _code(self, end_deaf: Callable[[int], bool]) -> int:
        while True:
            pid, status = os.waitpid(self._process.pid, os.WNOHANG | os.WUNTRACED)
            if pid and not os.WIFSTOPPED(status):
                code = os.waitstatus_to_exitcode(status)
                self._process.returncode = code
                if self._ended_by:
                    return 128 + self._ended_by
                return 128 - code if code < 0 else code
            if pid:
                os.kill(os.getpid(), signal.SIGSTOP)  # with it, as a shell expects
                continue
            told = signal.sigwaitinfo(_WAITED_FOR)
            if told.si_signo not in _FORWARDED or self._ended_by:
                continue
            # A container goes on when its terminal is gone.
            if told.si_signo != signal.SIGHUP and end_deaf(told.si_signo):
                self._ended_by = told.si_signo
            elif told.si_code != _SENT_BY_KERNEL:
                self._process.send_signal(told.si_signo)

    def _give_up(self) -> None:
        """Have the engine end: the hook may wait for a keeper that is gone."""
        if self._hook is not None:
            with contextlib.suppress(OSError), contextlib.closing(HookCall(self._hook)) as call:
                call.answer(go=False)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_GIVE_UP_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _explained(self) -> ClaudeProxyError:
        error = self._explanation()
        self._errors.finish(said=False)
        return error

    def _explanation(self) -> ClaudeProxyError:
        said, code = self._errors.own, self._process.returncode
        named = _PROGRAM.search(said.decode("utf-8", "replace").replace('\\"', '"'))
        if named is not None and code in {NOT_EXECUTABLE, NOT_FOUND}:
            return NoProgramError(named[1] or named[2], code)
        return explained(self._engine, "run", said, code or 1)
