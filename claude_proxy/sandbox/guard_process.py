"""Mount guard of a run, from the launcher's side: starts it, and tells the user what it reports.

What a program outside replaced is said at once and again at the end of the run
(`bubblewrap.mount_guard` puts protection back). Law kept: fail closed: a guard that ends before the
sandbox does ends the run.
"""

import os
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import helper_end, own_programs
from claude_proxy.sandbox.bubblewrap.stop_generation import StopGeneration
from claude_proxy.sandbox.helper_processes import HelperProcess, start_program
from claude_proxy.sandbox.plan.model import GuardedMount, GuardKind
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import RunLog

EXIT_CODE = 137  # 128 + SIGKILL, by which COMMAND ended

# As in bubblewrap/mount_guard.py, which would take milliseconds to import.
_GO, _READY = b"go", b"ready"
_APPEARED, _ENDED = "appeared", "ended"
_PROGRAM = "claude_proxy.sandbox.bubblewrap.mount_guard"

_START_PATIENCE_S = 30.0
_REPORT_BYTES = 1 << 16
_LINES_FOR_EACH = 3  # while COMMAND runs; a path that is replaced more often is counted
_SHOWN_AT_THE_END = 20


class MountGuard(HelperProcess):
    """The guard of one run, and what it has reported."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        lifeline: int,
        reports: socket.socket,
        memory: int,
        log: Path,
    ) -> None:
        super().__init__("mount guard", process, lifeline)
        self.say: Callable[[str], None] = lambda _: None  # prints a line to the user at once
        self.generation = StopGeneration(memory)
        self._go = lifeline
        self._reports = reports
        self._log = log
        self._notes: Counter[str] = Counter()  # lines about each path
        self._replaced: dict[
            str, tuple[int, str]
        ] = {}  # how often the run could use each, and when
        self.ended: ClaudeProxyError | None = None  # why the guard has killed the sandbox

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is a report, or no guard."""
        return self._reports.fileno()

    def watch(self) -> None:
        """Let it watch a sandbox that is mounted completely, and return once it does."""
        self._reports.settimeout(_START_PATIENCE_S)
        try:
            os.write(self._go, _GO)
            said = self._reports.recv(_REPORT_BYTES)
        except OSError:
            said = b""
        if said != _READY:
            self.end()
            raise self.failed(self._log)

    def tell(self) -> bool:
        """Tell the user what the guard has reported; return False once the guard has ended."""
        self._reports.settimeout(0)
        while True:
            try:
                report = self._reports.recv(_REPORT_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not report:
                return False
            for line in self._lines_of(report):
                self.say(line)

    def lost(self) -> None:
        """Note that the guard ended although the sandbox had not."""
        if self.ended is None:
            self.ended = _run_ended(
                f"the process that guards them {helper_end.words_of(self.end_code())}",
                self._place(),
            )

    def finish(self) -> None:
        """End the guard; tell what it still reports, and again what was replaced."""
        super().end()
        self.tell()
        for line in self._summary():
            self.say(line)

    def end(self) -> None:
        """End the process, and hear no more of it."""
        super().end()
        self._reports.close()

    def _place(self) -> str | None:
        return helper_end.place_of(self._log, f"process {self.pid}")

    def _lines_of(self, report: bytes) -> Iterator[str]:
        what, at, *rest = [os.fsdecode(field) for field in report.split(b"\0")]
        if what == _ENDED:
            self.ended = _run_ended(rest[0], at or self._place())
            return
        kind, when, count, known = rest
        clock = time.strftime("%H:%M:%S", time.localtime(int(when)))
        as_before = known and what != _APPEARED
        if not as_before:
            before, _ = self._replaced.get(at, (0, ""))
            self._replaced[at] = (before + int(count), clock)
        self._notes[at] += 1
        if self._notes[at] > _LINES_FOR_EACH:
            return
        if as_before:
            yield f"note: {at} was replaced outside at {clock}; its content is as before"
        else:
            yield f"warning: {at} {_message(what, kind, clock)}"

    def _summary(self) -> Iterator[str]:
        found = self._replaced
        for at, (count, clock) in list(found.items())[:_SHOWN_AT_THE_END]:
            often = "once" if count == 1 else f"{count} times"
            yield (
                f"warning: {at} was replaced {often} during this run, last at {clock}, and was not "
                "protected for an instant each time; check it before you trust it"
            )
        if len(found) > _SHOWN_AT_THE_END:
            yield f"warning: and {len(found) - _SHOWN_AT_THE_END} more such files"


def _message(what: str, kind: str, clock: str) -> str:
    hidden = kind == GuardKind.HIDE
    if what == _APPEARED:
        made = f"appeared at {clock}, made outside or by this run"
        if hidden:
            return f"{made}; it is hidden now, but for an instant the run could read it"
        return f"{made}; the run cannot change it from now on: check it before you trust it"
    if hidden:
        return (
            f"was replaced outside at {clock}; it is hidden again, but for an instant the run "
            "could read it"
        )
    return (
        f"was replaced outside at {clock}; it is protected again, but for an instant the run "
        "could write it: check it before you trust it"
    )


def _run_ended(why: str, where: str | None) -> ClaudeProxyError:
    return ClaudeProxyError(
        f"the run was ended, because its files could not be protected any more: {why}",
        where=where,
        fix="check what is written there; then start the run again",
    )


@contextmanager
def mount_guard(
    guarded: Sequence[GuardedMount],
    init: int,
    run_directory: RunDirectory,
    log: RunLog,
    say: Callable[[str], None],
) -> Iterator[MountGuard | None]:
    """Run the guard of a sandbox; None if there is nothing that the host could take away."""
    if not guarded:
        yield None
        return
    with start_mount_guard(guarded, init, run_directory, log) as guard:
        guard.say = say
        yield guard


def start_mount_guard(
    guarded: Sequence[GuardedMount],
    init: int,
    run_directory: RunDirectory,
    log: RunLog,
    *,
    whole: bool = False,
) -> MountGuard:
    """Start the guard of a sandbox; it does nothing before `MountGuard.watch`.

    `whole`: the first process inside is not ours.
    """
    until, lifeline = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    memory = os.memfd_create("claude-proxy-guard", os.MFD_CLOEXEC)
    try:
        os.ftruncate(memory, os.sysconf("SC_PAGESIZE"))
        numbers = (until, init, theirs.fileno(), memory)
        words = own_programs.words_of(_PROGRAM, *map(str, numbers))
        words += ["--whole"] if whole else []
        for mount in guarded:
            words += [mount.kind.value, str(mount.base), str(mount.at)]
        process = start_program(words, (until, theirs.fileno(), memory), log)
        guard = MountGuard(process, lifeline, ours, memory, log.path)
        run_directory.note(process.pid)
        return guard
    finally:
        os.close(until)
        theirs.close()
        os.close(memory)
