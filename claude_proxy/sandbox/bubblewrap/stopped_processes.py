"""Processes of a stopped sandbox: which still run, which were stopped before, what they hold open.

All is read in the sandbox's own /proc, which lists its processes only and which no process inside
can cover. Law kept: fail closed: what cannot be read counts as running, or as held.
"""

import os
import signal
from collections.abc import Collection, Iterable, Iterator

from claude_proxy.sandbox.bubblewrap import mount_calls

_STOPPED = frozenset({b"T", b"t", b"Z", b"X", b"x"})
_WAITING = b"D"
_SIGSTOP_BIT = 1 << 18
# What a terminal stops jobs by: SIGCONT discards them where they are still pending (signal(7)).
_JOB_STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
# Threads that wait for a child to call execve (vfork) cannot be stopped, nor run before the child:
# clone, vfork and clone3 on x86-64, clone and clone3 on the others.
_FORKS = {"x86_64": {b"56", b"58", b"435"}}.get(os.uname().machine, {b"220", b"435"})


class StoppedProcesses:
    """The processes of one sandbox; `ours` are process ids inside that are left out.

    `whole`: the first process is one of them; otherwise it is bwrap's own.
    """

    def __init__(self, proc: int, ours: Iterable[int], *, whole: bool = False) -> None:
        self._proc = proc
        self._ours = {*ours} if whole else {1, *ours}

    def pids(self) -> list[int]:
        """Return the process ids inside."""
        names = os.listdir(self._proc)  # noqa: PTH208 - of a descriptor
        found = [int(name) for name in names if name.isdecimal()]
        return [pid for pid in found if pid not in self._ours]

    def running(self) -> set[int]:
        """Return the processes of which any thread could still do something."""
        tasks = [task for task in self._tasks() if not self._is_stopped(task)]
        return {int(task.partition("/")[0]) for task in tasks}

    def _tasks(self) -> Iterator[str]:
        for pid in self.pids():
            try:
                names = self._names_in(f"{pid}/task")
            except FileNotFoundError:
                continue
            yield from (f"{pid}/task/{name}" for name in names)

    def _is_stopped(self, task: str) -> bool:
        try:
            state = _fields(self._read(f"{task}/stat"))[0]
            if state == _WAITING:
                return self._read(f"{task}/syscall").split(b" ")[0] in _FORKS
        except (FileNotFoundError, ProcessLookupError):
            return True
        except OSError:
            return False
        return state in _STOPPED

    def suspended(self) -> frozenset[int]:
        """Return the processes that were stopped before the guard's stop, by Ctrl-Z for example.

        Call it before a second SIGSTOP is sent. A process that was stopped has the first one still
        pending; so has one that cannot take it yet, but that one is in another state.
        """
        return frozenset(pid for pid in self.pids() if self._is_suspended(pid))

    def _is_suspended(self, pid: int) -> bool:
        try:
            status = self._read(f"{pid}/status")
        except OSError:
            return False
        return _field(status, b"State")[:1] == b"T" and bool(_pending(status) & _SIGSTOP_BIT)

    def stops_of(self, pid: int) -> list[int]:
        """Return the stops by a terminal that reached a process while it could not take them."""
        try:
            pending = _pending(self._read(f"{pid}/status"))
        except OSError:
            return []
        return [int(number) for number in _JOB_STOPS if pending & 1 << number - 1]

    def to_continue(self, suspended: Collection[int] = ()) -> list[int]:
        """Return all processes but those that were suspended, children before their parents.

        A shell that continues before its children would take them for suspended jobs.
        """
        parents = {}
        for pid in self.pids():
            if pid in suspended:
                continue
            try:
                parents[pid] = int(_fields(self._read(f"{pid}/stat"))[1])
            except (OSError, ValueError):
                continue
        return sorted(parents, key=lambda pid: _depth(pid, parents), reverse=True)

    def held(self, entries: dict[str, dict[str, int]], hidden: Collection[str] = ()) -> str | None:
        """Return a guarded path that a process has open past its protection; None if there is none.

        `entries` are the replaced entries, each with the mounts of the directories that lead to it;
        `hidden` are those that may not be read either.
        A descriptor that is on its way through a Unix socket could be anything, so it counts.
        """
        seen: set[str] = set()
        for task in self._tasks():
            for link in self._links(task):
                try:
                    target = os.readlink(link, dir_fd=self._proc)
                except OSError:
                    continue  # closed, or ended
                if found := self._past(link, target, entries, seen):
                    return found
        return self._mapped(entries, hidden)

    def _links(self, task: str) -> Iterator[str]:
        yield from (f"{task}/cwd", f"{task}/root")
        try:
            names = self._names_in(f"{task}/fd")
        except FileNotFoundError:
            return
        yield from (f"{task}/fd/{name}" for name in names)

    def _past(
        self, link: str, target: str, entries: dict[str, dict[str, int]], seen: set[str]
    ) -> str | None:
        if target.startswith("socket:") and target not in seen:
            seen.add(target)
            if self._has_descriptors(link):
                return next(iter(entries), None)
        if not target.startswith("/"):
            return None
        for at, mounts in entries.items():
            inside = target == at or target.startswith(f"{at}/")
            if (inside or target in mounts) and self._mount_of(link) != mounts.get(target):
                return at
        return None

    def _has_descriptors(self, link: str) -> bool:
        try:
            text = self._read(link.replace("/fd/", "/fdinfo/"))
        except OSError:
            return False
        return any(line.startswith(b"scm_fds:") and int(line[8:]) > 0 for line in text.splitlines())

    def _mount_of(self, link: str) -> int | None:
        try:
            if "/fd/" in link:
                return mount_calls.mount_in(link.replace("/fd/", "/fdinfo/"), self._proc)
            descriptor = os.open(link, os.O_PATH | os.O_CLOEXEC, dir_fd=self._proc)
        except OSError:
            return None
        try:
            return mount_calls.mount_of(descriptor)
        finally:
            os.close(descriptor)

    def _mapped(self, entries: dict[str, dict[str, int]], hidden: Collection[str]) -> str | None:
        """Return an entry that a process has mapped: shared, or any way if it is hidden."""
        for pid in self.pids():
            try:
                lines = self._read(f"{pid}/maps").splitlines()
            except OSError:
                continue
            for at in entries:
                name = os.fsencode(at)
                if any(_is_mapping_of(line, name, private=at in hidden) for line in lines):
                    return at
        return None

    def _names_in(self, path: str) -> list[str]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        descriptor = os.open(path, flags, dir_fd=self._proc)
        try:
            return os.listdir(descriptor)  # noqa: PTH208 - of a descriptor
        finally:
            os.close(descriptor)

    def _read(self, path: str) -> bytes:
        return mount_calls.read_all(path, self._proc)


def _fields(stat: bytes) -> list[bytes]:
    """Return the fields after the name, which may contain anything: state, parent and so on."""
    return stat.rpartition(b")")[2].split()


def _pending(status: bytes) -> int:
    return int(_field(status, b"ShdPnd") or b"0", 16)


def _field(status: bytes, name: bytes) -> bytes:
    for line in status.splitlines():
        if line.startswith(name + b":"):
            return line.partition(b":")[2].strip()
    return b""


def _depth(pid: int, parents: dict[int, int]) -> int:
    depth = 0
    while pid in parents and depth < len(parents):
        pid = parents[pid]
        depth += 1
    return depth


def _is_mapping_of(line: bytes, path: bytes, *, private: bool) -> bool:
    """Tell whether a line of /proc/PID/maps is about a path or something below it."""
    fields = line.split(None, 5)
    if len(fields) < 6 or not (private or fields[1].endswith(b"s")):  # noqa: PLR2004 - the path
        return False
    return fields[5] in {path, path + b" (deleted)"} or fields[5].startswith(path + b"/")
