"""Job control: waits for COMMAND as a shell waits for a job, and forwards signals to it.

COMMAND has the terminal: it is in the launcher's process group or in one that it created, so the
kernel sends it the signals of keys and of window changes. COMMAND is not a child of the launcher,
so the launcher reads in /proc whether it is stopped; then the launcher stops itself, so that the
shell takes the terminal back.
"""

import contextlib
import os
import select
import signal
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from claude_proxy.sandbox.bubblewrap.bwrap import Bubblewrap
from claude_proxy.sandbox.guard_process import MountGuard
from claude_proxy.sandbox.helper_processes import ProxyProcess

_LOOK_EVERY_S = 0.1  # how often to check whether COMMAND is stopped: there is no signal for it
_SETTLE_S = 0.02

_FORWARDED = (signal.SIGTERM, signal.SIGHUP)
_KEYS = (signal.SIGINT, signal.SIGQUIT)
_SI_KERNEL = 0x80  # <asm-generic/siginfo.h>: sent for a key, so COMMAND got the signal as well


class Terminal:
    """The controlling terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._modes = termios.tcgetattr(descriptor)

    @classmethod
    @contextlib.contextmanager
    def controlling(cls) -> "Iterator[Terminal | None]":
        """Yield the controlling terminal of this process, or None if there is none."""
        try:
            descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            yield None
            return
        try:
            yield cls(descriptor)
        finally:
            os.close(descriptor)

    def group(self) -> int:
        """Return the foreground process group; 0 if it is unknown."""
        with contextlib.suppress(OSError):
            return os.tcgetpgrp(self._descriptor)
        return 0

    def give(self, group: int) -> None:
        """Make a process group the foreground group."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        try:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(self._descriptor, group)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def reclaim(self, *, restore: bool) -> None:
        """Take the terminal back from a group that has ended; `restore` also resets its modes.

        If the foreground group is alive, it is the shell's: it has put the launcher into the
        background, and keeps the terminal.
        """
        group = self.group()
        if group != os.getpgrp() and not _is_gone(group):
            return
        if group != os.getpgrp():
            self.give(os.getpgrp())
        if restore:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
            try:
                with contextlib.suppress(termios.error):
                    termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._modes)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


class JobControl:
    """Waits for one COMMAND.

    `grace_s` is how long, in seconds, COMMAND may take to end after a signal that ends the run. If
    `proxy` has not become ready and never will, COMMAND is ended.
    """

    def __init__(  # noqa: PLR0913 - everything that can end a run
        self,
        sandbox: Bubblewrap,
        terminal: Terminal | None,
        *,
        own_session: bool,
        grace_s: float,
        guard: MountGuard | None = None,
        proxy: ProxyProcess | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._guard = guard
        self._proxy = proxy
        self._terminal = terminal
        self._grace_s = grace_s
        self._own_session = own_session  # where no key reaches COMMAND
        self._ended_by: signal.Signals | None = None
        self._deadline: float | None = None
        self._arrived: list[int] = []
        # With a terminal these are polled, not handled: only sigtimedwait tells who sent them.
        self._keys: set[signal.Signals] = set()

    def run(self) -> int:
        """Start COMMAND, wait for it, and return its exit code as a shell does (128+n)."""
        with self._signals() as wakeup:
            process = os.pidfd_open(self._sandbox.process.pid)
            self._sandbox.release()
            try:
                while (code := self._look()) is None:
                    waiting = [process, wakeup, *self._reports()]
                    readable = select.select(waiting, [], [], self._pause_s())[0]
                    self._hear(readable)
                    if wakeup in readable:
                        with contextlib.suppress(BlockingIOError):
                            os.read(wakeup, 512)
                    while self._arrived:
                        self._on_signal(signal.Signals(self._arrived.pop(0)))
                    while (sent := signal.sigtimedwait(self._keys, 0)) is not None:
                        if sent.si_code != _SI_KERNEL:
                            self._send(signal.Signals(sent.si_signo))
                    if self._deadline is not None and time.monotonic() > self._deadline:
                        self._sandbox.end()
            finally:
                os.close(process)
        if self._terminal is not None:
            self._terminal.reclaim(restore=code > 128)  # noqa: PLR2004 - ended by a signal
        return 128 + self._ended_by if self._ended_by is not None else code

    def _reports(self) -> Iterator[int]:
        """Yield the descriptors on which helper processes report to the launcher."""
        if self._guard is not None:
            yield self._guard.fileno()
        if self._proxy is not None and self._proxy.report is not None:
            yield self._proxy.report

    def _hear(self, readable: list[int]) -> None:
        if self._guard is not None and self._guard.fileno() in readable:
            self._on_report(self._guard)
        if self._proxy is not None and self._proxy.report is not None:
            self._proxy.hear()
            if self._proxy.start_error is not None and not self._sandbox.has_ended:
                self._sandbox.end()

    def _on_report(self, guard: MountGuard) -> None:
        if guard.tell():
            return
        self._guard = None
        if not self._sandbox.has_ended:
            self._sandbox.end()
            guard.lost()  # this waits for the guard's end

    def _pause_s(self) -> float | None:
        patience_s = None if self._proxy is None else self._proxy.patience_s
        if self._terminal is None and self._deadline is None:
            return patience_s
        return _LOOK_EVERY_S if patience_s is None else min(_LOOK_EVERY_S, patience_s)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[int]:
        """Handle signals in this context; yield the descriptor that they make readable."""
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before_wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        handled = [*_FORWARDED, *_KEYS, signal.SIGCHLD]
        if self._terminal is not None:
            # COMMAND decides whether it stops, and the launcher follows it.
            handled.append(signal.SIGTSTP)
        if self._terminal is not None and not self._own_session:
            self._keys = {one for one in _KEYS if signal.getsignal(one) is not signal.SIG_IGN}
        before_mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._keys)
        before = {}
        for number in handled:
            # A signal that the parent process ignores (nohup, a shell's `&`) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, self._note)
        try:
            yield reading
        finally:
            while signal.sigtimedwait(self._keys, 0) is not None:
                pass  # a key that ended COMMAND must not end the clean-up
            signal.pthread_sigmask(signal.SIG_SETMASK, before_mask)
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before_wakeup)
            os.close(reading)
            os.close(writing)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._arrived.append(number)

    def _on_signal(self, number: signal.Signals) -> None:
        if number in _FORWARDED:
            if self._ended_by is not None:  # the second signal
                self._sandbox.end()
                return
            self._ended_by = number
            self._deadline = time.monotonic() + self._grace_s
            self._send(number)
            self._send(signal.SIGCONT)
        elif number in _KEYS and self._own_session:
            self._send_to_group(number)
        elif number in _KEYS:
            self._send(number)  # without a terminal, a process sent it to the launcher

    def _send(self, number: signal.Signals) -> None:
        """Send a signal to COMMAND."""
        command = self._sandbox.command()
        if command is None:
            return
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(command)
            try:
                # The id is still COMMAND's: if it had ended, it would not be a child any more.
                if self._sandbox.command() == command:
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def _send_to_group(self, number: signal.Signals) -> None:
        """Send a signal to all processes that a key would reach if COMMAND had the terminal."""
        with contextlib.suppress(OSError):
            command = self._sandbox.command()
            if command is not None and os.getpgid(command) != os.getpgrp():
                os.killpg(os.getpgid(command), number)

    # Ends and stops

    def _look(self) -> int | None:
        """Return the exit code if bwrap has ended; follow COMMAND if it has stopped."""
        process = self._sandbox.process
        if process.returncode is None:
            pid, status = os.waitpid(process.pid, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                # The key stopped bwrap as well; COMMAND needs it running.
                time.sleep(_SETTLE_S)
                process.send_signal(signal.SIGCONT)
            elif pid:
                process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode is not None:
            return process.returncode if process.returncode >= 0 else 128 - process.returncode
        if self._terminal is not None and self._ended_by is None:
            self._follow(self._terminal)
        return None

    def _stops_by_guard(self) -> int | None:
        """Return how often the mount guard has stopped the sandbox; None while it is stopped."""
        if self._guard is None:
            return 0
        generation = self._guard.generation.value
        return None if generation % 2 else generation

    def _follow(self, terminal: Terminal) -> None:
        command = self._sandbox.command()
        before = self._stops_by_guard()
        if command is None or not _is_stopped(command):
            return
        # After a suspension it may be about to continue with the rest of its group.
        time.sleep(_SETTLE_S)
        if not _is_stopped(command) or before is None or self._stops_by_guard() != before:
            return
        group = terminal.group()
        os.kill(os.getpid(), signal.SIGSTOP)
        # Here the shell has continued us, in the foreground or the background.
        if group not in {os.getpgrp(), 0} and terminal.group() == os.getpgrp():
            terminal.give(group)
        with contextlib.suppress(OSError):
            os.killpg(os.getpgid(command), signal.SIGCONT)
        self._send(signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
    return False
