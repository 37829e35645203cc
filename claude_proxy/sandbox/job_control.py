"""Waits for a COMMAND as a shell waits for a job, and passes on what the launcher is told.

COMMAND has the terminal whole: it is in the launcher's process group or in one that it made, so the
kernel brings it what is typed, and window resizes. What a shell learns from its child, the launcher
has to find out: COMMAND is not its child, so whether it is stopped is read in /proc, and then the
launcher stops itself, so that the shell which started it takes the terminal back.
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

_LOOK_EVERY_S = 0.1  # whether COMMAND has stopped itself, which no signal tells us
_SETTLE_S = 0.02
_GRACE_S = 5.0  # for COMMAND to end once it was asked to

_FORWARDED = (signal.SIGTERM, signal.SIGHUP)
_KEYS = (signal.SIGINT, signal.SIGQUIT)
_SI_KERNEL = 0x80  # of <asm-generic/siginfo.h>: a key was pressed, which COMMAND has felt itself


class Terminal:
    """The controlling terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._modes = termios.tcgetattr(descriptor)

    @classmethod
    @contextlib.contextmanager
    def ours(cls) -> "Iterator[Terminal | None]":
        """Yield the terminal, if there is one."""
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
        """Return the process group in the foreground."""
        with contextlib.suppress(OSError):
            return os.tcgetpgrp(self._descriptor)
        return 0

    def give(self, group: int) -> None:
        """Put a process group into the foreground."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        try:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(self._descriptor, group)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def reclaim(self, *, restore: bool) -> None:
        """Take it back from a group that has ended; set its modes as they were if they may be off.

        A group that lives is the shell's, which has put the launcher into the background.
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
    """One wait for one COMMAND."""

    def __init__(self, bubble: Bubblewrap, terminal: Terminal | None, *, apart: bool) -> None:
        self._bubble = bubble
        self._terminal = terminal
        self._apart = apart  # in a session of its own, where no key reaches it
        self._asked: signal.Signals | None = None
        self._deadline: float | None = None
        self._arrived: list[int] = []
        # With a terminal these are asked for, not handled: only so is told who sent them.
        self._keys: set[signal.Signals] = set()

    def run(self) -> int:
        """Start COMMAND, and return its exit code once it has ended, as a shell reports it."""
        with self._signals() as wakeup:
            process = os.pidfd_open(self._bubble.process.pid)
            self._bubble.release()
            try:
                while (code := self._look()) is None:
                    readable = select.select([process, wakeup], [], [], self._pause())[0]
                    if wakeup in readable:
                        with contextlib.suppress(BlockingIOError):
                            os.read(wakeup, 512)
                    while self._arrived:
                        self._on_signal(signal.Signals(self._arrived.pop(0)))
                    while (sent := signal.sigtimedwait(self._keys, 0)) is not None:
                        if sent.si_code != _SI_KERNEL:
                            self._send(signal.Signals(sent.si_signo))
                    if self._deadline is not None and time.monotonic() > self._deadline:
                        self._bubble.end()
            finally:
                os.close(process)
        if self._terminal is not None:
            self._terminal.reclaim(restore=code > 128)  # noqa: PLR2004 - ended by a signal
        return 128 + self._asked if self._asked is not None else code

    def _pause(self) -> float | None:
        if self._terminal is not None or self._deadline is not None:
            return _LOOK_EVERY_S
        return None

    @contextlib.contextmanager
    def _signals(self) -> Iterator[int]:
        """Have signals end the sandbox, or reach it, for a while; yield what they wake."""
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before_wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        handled = [*_FORWARDED, *_KEYS, signal.SIGCHLD]
        if self._terminal is not None:
            # COMMAND decides whether it stops, and the launcher follows it.
            handled.append(signal.SIGTSTP)
        if self._terminal is not None and not self._apart:
            self._keys = {one for one in _KEYS if signal.getsignal(one) is not signal.SIG_IGN}
        before_mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._keys)
        before = {}
        for number in handled:
            # What whoever started us ignores (nohup, a shell's `&`) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, self._note)
        try:
            yield reading
        finally:
            while signal.sigtimedwait(self._keys, 0) is not None:
                pass  # a key that ended COMMAND is no reason to end what takes it down
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
            if self._asked is not None:  # asked twice
                self._bubble.end()
                return
            self._asked = number
            self._deadline = time.monotonic() + _GRACE_S
            self._send(number)
            self._send(signal.SIGCONT)
        elif number in _KEYS and self._apart:
            self._send_to_group(number)
        elif number in _KEYS:
            self._send(number)  # without a terminal somebody sent it, to the launcher

    def _send(self, number: signal.Signals) -> None:
        """Send a signal to COMMAND."""
        command = self._bubble.command()
        if command is None:
            return
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(command)
            try:
                # It is COMMAND still: if that had ended, its parent would be waiting for another.
                if self._bubble.command() == command:
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def _send_to_group(self, number: signal.Signals) -> None:
        """Send a signal to all that a key would reach, had COMMAND the terminal."""
        with contextlib.suppress(OSError):
            command = self._bubble.command()
            if command is not None and os.getpgid(command) != os.getpgrp():
                os.killpg(os.getpgid(command), number)

    # What a shell would learn by waiting

    def _look(self) -> int | None:
        """Return the exit code if bwrap has ended; follow COMMAND if it has stopped."""
        process = self._bubble.process
        if process.returncode is None:
            pid, status = os.waitpid(process.pid, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                # The key reached bwrap as well; were it left so, nobody would wait for COMMAND.
                time.sleep(_SETTLE_S)
                process.send_signal(signal.SIGCONT)
            elif pid:
                process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode is not None:
            return process.returncode if process.returncode >= 0 else 128 - process.returncode
        if self._terminal is not None and self._asked is None:
            self._follow(self._terminal)
        return None

    def _follow(self, terminal: Terminal) -> None:
        command = self._bubble.command()
        if command is None or not _is_stopped(command):
            return
        # It may be about to go on, with the rest of its group, after a suspension.
        time.sleep(_SETTLE_S)
        if not _is_stopped(command):
            return
        group = terminal.group()
        os.kill(os.getpid(), signal.SIGSTOP)
        # Here the shell has us go on, in the foreground or the background.
        if group not in {os.getpgrp(), 0} and terminal.group() == os.getpgrp():
            terminal.give(group)
        with contextlib.suppress(OSError):
            os.killpg(os.getpgid(command), signal.SIGCONT)
        self._send(signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
    return False
