"""Limits of a sandbox: how many processes it may have, and how much memory they may use.

Law kept: no quiet downgrade. What this kernel cannot limit is reported, not ignored.

Processes are limited by RLIMIT_NPROC, which counts per user namespace since Linux 5.14: only those
of the sandbox. It does not hold for root; there the sandbox's own range of process ids is limited,
which a pid namespace has since Linux 6.14. Both count threads.

Memory is what the processes have for themselves, in RAM and swap. RLIMIT_AS would end every program
that only reserves addresses, as node does, and a control group has to be delegated by systemd. So
this looks as often as the limit could be reached, and kills the process that uses the most.

It is imported by the watchdog, so it imports only what loads at once: not `signal`, which makes
enumerations.
"""

import _signal as signal  # type: ignore[import-not-found] # which typeshed does not describe
import os
import resource

from claude_proxy.sandbox.light_suppress import suppress

_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_COUNTS_PER_NAMESPACE = (5, 14)
_RESERVED_IDS = 300  # the kernel's RESERVED_PIDS, which are not given twice
_PID_MAX = "/proc/sys/kernel/pid_max"

_FASTEST = 8 << 30  # bytes a second: what a few threads can fill
_SHORTEST_S, _LONGEST_S = 0.02, 1.0
_IN_STATUS = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
_IN_ROLLUP = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")  # what is shared is counted once


def limit_processes(init: int, count: int) -> bool:
    """Limit the processes of the sandbox whose first process is `init`; return whether it holds."""
    if os.geteuid() == 0:
        return _limit_ids(init, count + _RESERVED_IDS)
    release = os.uname().release.split(".")
    if (int(release[0]), int(release[1].partition("-")[0])) < _COUNTS_PER_NAMESPACE:
        return False
    try:
        resource.prlimit(init, resource.RLIMIT_NPROC, (count, count))
    except (OSError, ValueError):
        return False
    return True


def _limit_ids(init: int, highest: int) -> bool:
    """Limit the process ids in the pid namespace of a process; only a child can enter it."""
    child = os.fork()
    if not child:
        try:
            _enter(init)
            written = os.fork()
            if not written:
                _write_pid_max(highest)
                os._exit(0)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(written, 0)[1]) and 1)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _enter(init: int) -> None:
    space = os.open(f"/proc/{init}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    own = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - pathlib takes milliseconds to import
    if os.fstat(space).st_ino == own:
        raise ProcessLookupError
    os.setns(space, os.CLONE_NEWPID)


def _write_pid_max(highest: int) -> None:
    try:
        file = os.open(_PID_MAX, os.O_RDWR | os.O_CLOEXEC)
        # Before Linux 6.14 this setting is the whole machine's.
        release = os.uname().release.split(".")
        if (int(release[0]), int(release[1].partition("-")[0])) < (6, 14):
            os._exit(1)
        if highest < int(os.read(file, 32)):
            os.pwrite(file, b"%d\n" % highest, 0)
    except (OSError, ValueError):
        os._exit(1)


class MemoryWatch:
    """Keeps the memory of a sandbox below a limit."""

    def __init__(self, init: int, limit: int) -> None:
        self._init = init
        self._limit = limit
        self._processes: int | None = None  # the directory /proc of the sandbox
        self._used = 0

    @property
    def pause_s(self) -> float:
        """How long to wait before the next look: the limit cannot be reached sooner."""
        left = max(0, self._limit - self._used)
        return min(max(left / _FASTEST, _SHORTEST_S), _LONGEST_S)

    def look(self) -> tuple[str, int] | None:
        """Return the name and the memory of a process that had to be killed; None for none."""
        with suppress(OSError):  # not mounted yet, or gone
            self._used = self._sum("status", _IN_STATUS)
            if self._used > self._limit:
                return self._kill_largest()
        return None

    def _directory(self) -> int:
        if self._processes is None:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            root = os.open(f"/proc/{self._init}/root", flags | os.O_PATH)
            try:
                self._processes = os.open("proc", flags, dir_fd=root)
            finally:
                os.close(root)
        return self._processes

    def _sum(self, name: str, fields: tuple[bytes, ...]) -> int:
        return sum(self._bytes_of(pid, name, fields) for pid in self._pids())

    def _pids(self) -> list[str]:
        return [name for name in os.listdir(self._directory()) if name.isdecimal()]  # noqa: PTH208

    def _kill_largest(self) -> tuple[str, int] | None:
        """Kill the process that uses the most, if all together do use too much."""
        sizes = {pid: self._size_of(pid) for pid in self._pids()}
        sizes.pop("1", None)  # bwrap's own
        if sum(sizes.values()) <= self._limit:
            return None
        largest = max(sizes, key=lambda pid: sizes[pid])
        name = self._read(f"{largest}/comm").decode("utf-8", "replace").strip()
        # The directory of a process is a reference to this process, not to its number.
        process = os.open(largest, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._directory())
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            os.close(process)
        return name, sizes[largest]

    def _size_of(self, pid: str) -> int:
        # A process can make itself unreadable, but not its status.
        counted_once = self._bytes_of(pid, "smaps_rollup", _IN_ROLLUP)
        return counted_once or self._bytes_of(pid, "status", _IN_STATUS)

    def _bytes_of(self, pid: str, name: str, fields: tuple[bytes, ...]) -> int:
        found = 0
        with suppress(OSError):  # it has ended
            for line in self._read(f"{pid}/{name}").splitlines():
                if line.startswith(fields):
                    found += int(line.split()[1]) * 1024
        return found

    def _read(self, name: str) -> bytes:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory())
        try:
            return os.read(file, 64 * 1024)
        finally:
            os.close(file)
