"""Mount guard: puts the protection of a sandbox back when a program outside replaces an entry.

Usage: mount_guard.py LIFELINE PID REPORTS MEMORY [--whole] [KIND BASE AT ...]

--whole: the first process inside is not ours, as in a container: it is stopped with all others.

A mount on a directory entry of the host is taken away by the kernel when the entry is replaced from
outside (renamed over, unlinked), and moves with an entry that is renamed. This process watches the
entries and the mounts of one sandbox. When one is replaced, everything inside is stopped at once
(`stopper`), protection is mounted again in the sandbox's mount namespace, and what was running goes
on. The launcher gets a report.

Law kept: fail closed. Where protection cannot be put back, where a process inside has the new entry
open past it, or where something inside interferes, the sandbox is killed.
"""

import fcntl
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

if not __package__:  # run by its path: add the package's directory, after the standard library
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))  # noqa: PTH100, PTH118, PTH120

from claude_proxy.sandbox.bubblewrap import mount_calls, stopper
from claude_proxy.sandbox.bubblewrap.guarded_entries import (
    HIDE,
    PIN,
    Entry,
    GuardedEntries,
    UnprotectableError,
)
from claude_proxy.sandbox.bubblewrap.stop_generation import StopGeneration
from claude_proxy.sandbox.bubblewrap.stopped_processes import StoppedProcesses

GO, READY = b"go", b"ready"
REPLACED, APPEARED, ENDED = "replaced", "appeared", "ended"

_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_MASK = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_EVENTS_BYTES = 1 << 17
_ANSWER_MS = 1000
_END_MS = 5000
_STOP_PATIENCE_S = 5.0
_PUT_BACK_PATIENCE_S = 10.0
_PAUSE_S = 0.0005
_SETTLE_S = 0.25  # a program outside may still be writing the content
_PF_EXITING = 0x4  # <linux/sched.h>
_TAMPERED = "a process inside interfered with the guard"


class RunEndedError(Exception):
    """The sandbox must be killed; the arguments are a path and the reason."""

    def __init__(self, at: str, why: str) -> None:
        super().__init__(at, why)
        self.at = at
        self.why = why


class Guard:
    """The guard of one sandbox, after it has entered the sandbox's mount namespace."""

    def __init__(
        self,
        entries: Sequence[Entry],
        reports: socket.socket,
        memory: int,
        first: int | None = None,
    ) -> None:
        """Guard entries; `first` is a descriptor of the first process, if that is not ours."""
        self._reports = reports
        self._first = first
        self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._events = mount_calls.new_watches()
        self._entries = GuardedEntries(entries)
        self._generation = StopGeneration(memory)
        self._absent = {entry.at for entry in self._entries.entries if self._is_absent(entry)}
        self._unsettled: dict[str, tuple[float, str, Entry]] = {}
        self._last: dict[str, int] = {}  # when each was replaced, in seconds of the clock
        self._counts: dict[str, int] = {}  # replacements that are not reported yet
        self._backlog: list[bytes] = []
        self._orders: socket.socket
        self._stopper = 0
        self._stopper_inside = 0

    def _is_absent(self, entry: Entry) -> bool:
        found = self._entries.find(entry)
        if found is None:
            return True
        found.close()
        return False

    # Start

    def start(self, mounts: Sequence[int]) -> None:
        """Watch, put back what is already gone, and start the stopper, which waits on `mounts`.

        The first of these is the stopper's, the second the guard's.
        """
        with suppress(OSError):  # before Linux 5.8 the stopper can be seen, which is no harm
            mount_calls.hide_untraceable(self._proc)
        self._watch()
        self._protect_all(mounts)
        for entry in self._entries.entries:
            self._entries.learn_content(entry)
        names = frozenset(
            os.fsencode(name) for entry in self._entries.entries for name in entry.names
        )
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stopper = os.fork()
        if self._stopper == 0:
            self._orders.close()
            self._reports.close()
            try:
                stopper.run(self._events, mounts[0], theirs, self._generation, names)
            except Exception:  # noqa: BLE001 - a copy of this process must not go on
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(0)
        theirs.close()
        self._stopper_inside = int(self._answer() or b"0")

    def _protect_all(self, mounts: Sequence[int]) -> None:
        """Protect what is not protected, until nothing is, and nothing was mounted since the look.

        The mounts of the start itself would have the stopper stop COMMAND as it begins.
        """
        deadline = time.monotonic() + _PUT_BACK_PATIENCE_S
        while True:
            # In this order: what is mounted in between must not be missed by the stopper alone.
            for descriptor in mounts:
                own = select.poll()
                own.register(descriptor, select.POLLPRI)
                own.poll(0)
            bare = self._entries.unprotected()
            if not bare:
                return
            for entry in bare:
                self._entries.protect(entry)
            if time.monotonic() > deadline:
                at = bare[0].at
                raise RunEndedError(at, "it is replaced faster than it can be protected")

    def _watch(self) -> None:
        """Watch every directory that holds an entry; those watched already stay so."""
        for entry in self._entries.one_for_each_directory():
            parent = self._entries.parent_of(entry)
            if parent is None:
                continue
            try:
                mount_calls.watch(self._events, parent, _MASK)
            except OSError as error:
                raise RunEndedError(entry.at, f"it cannot be watched: {error.strerror}") from error
            finally:
                os.close(parent)

    # Waiting

    def serve(self, lifeline: int, init: int, mounts: int, children: int) -> None:
        """Guard until the lifeline or the sandbox ends."""
        waiting = select.poll()
        for descriptor in (lifeline, init, children, self._orders.fileno()):
            waiting.register(descriptor, select.POLLIN)
        waiting.register(mounts, select.POLLPRI)
        while True:
            ready = [descriptor for descriptor, _ in waiting.poll(self._pause_ms())]
            if lifeline in ready or init in ready:
                return
            if children in ready:
                os.read(children, 512)
            self._refuse_tampering()
            if mounts in ready or self._orders.fileno() in ready:
                self._handle_stop(mounts)
            self._report_settled()

    def _pause_ms(self) -> int | None:
        if not self._unsettled:
            return None
        due = min(due for due, _, _ in self._unsettled.values())
        return max(0, int((due - time.monotonic()) * 1000) + 1)

    def _refuse_tampering(self) -> None:
        ended, _ = os.waitpid(self._stopper, os.WNOHANG | os.WUNTRACED)
        if ended:
            raise RunEndedError("", _TAMPERED)

    def wait_for_end(self, init: int) -> None:
        """Wait until the sandbox has ended, which it cannot before the stopper's end is seen."""
        with suppress(ChildProcessError):
            os.waitpid(self._stopper, 0)
        waiting = select.poll()
        waiting.register(init, select.POLLIN)
        waiting.poll(_END_MS)

    def _answer(self) -> bytes | None:
        waiting = select.poll()
        waiting.register(self._orders, select.POLLIN)
        return self._orders.recv(64) if waiting.poll(_ANSWER_MS) else None

    def _tell(self, order: bytes) -> None:
        try:
            self._orders.send(order)
        except OSError as error:  # the stopper is gone
            raise RunEndedError("", _TAMPERED) from error

    def _order(self, order: bytes) -> None:
        self._tell(order)
        if self._answer() != order:
            raise RunEndedError("", _TAMPERED)

    # One stop

    def _handle_stop(self, mounts: int) -> None:
        if self._answer() != stopper.STOPPED:
            raise RunEndedError("", _TAMPERED)
        self._stop_first()
        whole = self._first is not None
        processes = StoppedProcesses(self._proc, (self._stopper_inside,), whole=whole)
        suspended = processes.suspended()
        # What a shell has continued in between is stopped by this guard alone.
        suspended -= self._wait_until_stopped(processes)
        to_continue = processes.to_continue(suspended)
        replaced = self._put_back(mounts)
        self._refuse_holders(processes, replaced)
        self._note(replaced)
        # A Ctrl-Z that came in between would be lost with the stop.
        words = (b":".join(b"%d" % n for n in (p, *processes.stops_of(p))) for p in to_continue)
        self._tell(b" ".join([stopper.CONTINUE, *words]))

    def _wait_until_stopped(self, processes: StoppedProcesses) -> set[int]:
        """Wait until nothing inside can go on; return the processes that were seen running."""
        deadline = time.monotonic() + _STOP_PATIENCE_S
        rounds = 0
        ran: set[int] = set()
        while running := processes.running():
            ran |= running
            if time.monotonic() > deadline:
                raise RunEndedError("", "its processes could not be stopped")
            rounds += 1
            if rounds % 10 == 0:  # something inside may have continued others
                self._order(stopper.AGAIN)
                self._stop_first()
            time.sleep(_PAUSE_S)
        return ran

    def _stop_first(self) -> None:
        """Stop the first process, which only a process outside can."""
        if self._first is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGSTOP)

    def _put_back(self, mounts: int) -> dict[str, Entry]:
        """Protect what is not protected, until nothing is; return what was not."""
        replaced: dict[str, Entry] = {}
        deadline = time.monotonic() + _PUT_BACK_PATIENCE_S
        own = select.poll()
        own.register(mounts, select.POLLPRI)
        while True:
            self._drain()
            self._watch()
            bare = self._entries.unprotected()
            if not bare:
                self._order(stopper.ARM)
                own.poll(0)
                if not self._entries.unprotected():
                    return replaced
            for entry in bare:
                replaced[entry.at] = entry
                self._entries.protect(entry)
            if time.monotonic() > deadline:
                at = next(iter(replaced), "")
                raise RunEndedError(at, "it is replaced faster than it can be protected")

    def _drain(self) -> None:
        try:
            while os.read(self._events, _EVENTS_BYTES):
                pass
        except BlockingIOError:
            return

    def _refuse_holders(self, processes: StoppedProcesses, replaced: dict[str, Entry]) -> None:
        """Refuse to go on if a process inside has opened a replaced entry in between."""
        searched = {}
        for at, entry in replaced.items():
            if entry.kind != PIN:
                mounts = dict(self._entries.mounts(entry))
                searched[at] = {place: mounts[place] for place in mounts if place not in replaced}
        if not searched:
            return
        hidden = [at for at in searched if replaced[at].kind == HIDE]
        held = processes.held(searched, hidden)
        if held is not None:
            raise RunEndedError(held, "a process inside opened it while it was not protected")

    # Reports

    def _note(self, replaced: dict[str, Entry]) -> None:
        for at, entry in replaced.items():
            if entry.kind != PIN:
                what = APPEARED if at in self._absent else REPLACED
                self._absent.discard(at)
                if at in self._unsettled:
                    what = self._unsettled[at][1]
                self._unsettled[at] = (time.monotonic() + _SETTLE_S, what, entry)
                self._last[at] = int(time.time())
                self._counts[at] = self._counts.get(at, 0) + 1

    def _report_settled(self, *, everything: bool = False) -> None:
        now = time.monotonic()
        for at, (due, what, entry) in list(self._unsettled.items()):
            if everything or due <= now:
                del self._unsettled[at]
                known = self._entries.learn_content(entry)
                numbers = str(self._last[at]), str(self._counts.pop(at))
                self._report(what, at, entry.kind, *numbers, "known" if known else "")
        self._send()

    def report_the_rest(self) -> None:
        """Report everything that is not reported yet."""
        self._report_settled(everything=True)

    def _report(self, *fields: str) -> None:
        self._backlog.append(b"\0".join(os.fsencode(field) for field in fields))

    def _send(self) -> None:
        while self._backlog:
            try:
                self._reports.send(self._backlog[0], socket.MSG_DONTWAIT)
            except OSError:
                return  # nobody reads yet, or any more
            self._backlog.pop(0)


def enter(init: int, proc: int) -> None:
    """Enter the mount namespace of a sandbox, and its process namespace for children.

    `proc` is the host's /proc, which becomes the working directory.
    """
    mounts = os.open(f"/proc/{init}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    processes = os.open(f"/proc/{init}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    owner = fcntl.ioctl(mounts, _NS_GET_USERNS)
    if os.fstat(owner).st_ino != os.stat("/proc/self/ns/user").st_ino:  # noqa: PTH116 - quick
        os.setns(owner, os.CLONE_NEWUSER)
    os.setns(mounts, os.CLONE_NEWNS)
    os.setns(processes, os.CLONE_NEWPID)
    os.fchdir(proc)
    for descriptor in (mounts, processes, owner):
        os.close(descriptor)


def main(  # noqa: PLR0913 - the words of the command line
    lifeline: int,
    pid: int,
    reports: socket.socket,
    memory: int,
    entries: list[Entry],
    *,
    whole: bool = False,
) -> None:
    """Guard the entries until the lifeline or the sandbox ends."""
    init = os.pidfd_open(pid)
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    # One for each process that waits: the kernel notes per open file what was seen.
    mounts = [os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY | os.O_CLOEXEC) for _ in range(2)]
    children, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    if os.read(lifeline, len(GO)) != GO:
        return
    guard = None
    try:
        enter(pid, proc)
        guard = Guard(entries, reports, memory, init if whole else None)
        guard.start(mounts)
        reports.send(READY)
        guard.serve(lifeline, init, mounts[1], children)
    except Exception as error:
        if _is_ending(pid, proc):  # which ends the stopper, and all that is looked at
            if guard is not None:
                guard.wait_for_end(init)
            return
        signal.pidfd_send_signal(init, signal.SIGKILL)
        _report_end(reports, error)
        if not isinstance(error, RunEndedError | UnprotectableError):
            raise
    finally:
        if guard is not None:
            guard.report_the_rest()


def _is_ending(init: int, proc: int) -> bool:
    """Tell whether the first process of the sandbox is ending by itself; it kills all others."""
    try:
        flags = int(mount_calls.read_all(f"{init}/stat", proc).rpartition(b")")[2].split()[6])
    except OSError:
        return True
    return bool(flags & _PF_EXITING)


def _report_end(reports: socket.socket, error: Exception) -> None:
    at = getattr(error, "at", "")
    why = getattr(error, "why", None) or str(error)
    reports.send(b"\0".join(os.fsencode(field) for field in (ENDED, at, why)))


def run(words: list[str]) -> None:
    """Run the program with the words of its command line."""
    until, pid, reports, memory, *entries = words
    whole = entries[:1] == ["--whole"]
    del entries[: int(whole)]
    main(
        int(until),
        int(pid),
        socket.socket(fileno=int(reports)),
        int(memory),
        [Entry(*entries[at : at + 3]) for at in range(0, len(entries), 3)],
        whole=whole,
    )


if __name__ == "__main__":
    run(sys.argv[1:])
