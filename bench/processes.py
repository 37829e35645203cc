"""Starts the programs of a run, and reads in /proc what they cost.

What is ended is only ever a process group that was started here.
"""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
PATIENCE_S = 60.0

# Below the range that the kernel gives to outgoing connections, which could take a port away
# between two starts of a proxy.
_PORTS = range(20000, 32000)
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PEAK_RSS = "5"  # what /proc/PID/clear_refs takes to forget the peak (proc_pid_clear_refs(5))


class StartError(Exception):
    """A program that could not be brought to work."""


class Child:
    """A running program, the leader of a process group of its own."""

    def __init__(
        self, argv: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                start_new_session=True,
            )
        self.pid = self._process.pid

    def wait_for(self, port: int) -> float:
        """Wait until it listens on `port`; return how many seconds that took."""
        start = time.monotonic()
        while time.monotonic() < start + PATIENCE_S:
            if listens(port):
                return time.monotonic() - start
            if self.ended:
                raise StartError(f"it ended at once: {self.last_words()}")
            time.sleep(0.002)
        raise StartError(f"it does not listen: {self.last_words()}")

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def last_words(self) -> str:
        """Return the end of what it printed, on one line."""
        lines = self.log.read_text(errors="replace").split("\n")
        return " | ".join(line.strip() for line in lines[-8:] if line.strip())[-400:]

    def stop(self, patience_s: float = 10.0) -> int | None:
        """End it and what it started; return its exit code, None if it had to be killed."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.ended:
                os.killpg(self.pid, number)
            try:
                code = self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
            return code if number is signal.SIGTERM else None
        return None


def listens(port: int) -> bool:
    """Tell whether a connection to `port` is accepted."""
    try:
        socket.create_connection((LOOPBACK, port), 1.0).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """Return a port that nobody listens on."""
    for _ in range(1000):
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise StartError("there is no free port")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a tree of processes has used so far, and holds now."""

    cpu_s: float
    rss_kib: int
    peak_kib: int


def cost_of(pid: int) -> Cost:
    """Add up what the process `pid` and all below it have used."""
    cpu_s, rss, peak = 0.0, 0, 0
    for member in _tree({pid}):
        cpu_s += _cpu_s(member)
        fields = _status(member)
        rss += fields.get("VmRSS", 0)
        peak += fields.get("VmHWM", 0)
    return Cost(cpu_s, rss, peak)


def memory_kib(*pids: int) -> list[int]:
    """Add up the memory of each process and all below it; what they share counts once."""
    parents = _parents()
    return [sum(map(_proportional_kib, _below({pid}, parents))) for pid in pids]


def forget_peak(pid: int) -> None:
    """Have the kernel count the peak of resident memory from now on."""
    for member in _tree({pid}):
        try:
            Path(f"/proc/{member}/clear_refs").write_text(_PEAK_RSS)
        except OSError:
            continue  # another user's: its peak then counts from its start


def busy_s() -> tuple[float, float]:
    """Return the CPU seconds that the whole machine, and that this harness, have used so far."""
    first = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, idle, waiting, *rest = map(int, first.split()[1:9])
    whole = (user + nice + system + sum(rest[:3])) / _TICKS_PER_SECOND
    del idle, waiting
    return whole, sum(_cpu_s(member) for member in _tree({os.getpid()}))


def _tree(members: set[int]) -> set[int]:
    return _below(members, _parents())


def _parents() -> dict[int, int]:
    parents: dict[int, int] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(directory.name)):
            parents[int(directory.name)] = int(fields[1])
    return parents


def _below(members: set[int], parents: Mapping[int, int]) -> set[int]:
    members = set(members)
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return members


def _stat(pid: int) -> list[str]:
    """Return what follows the name in /proc/PID/stat, or nothing of a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    # utime, stime, and those of children that have ended
    return sum(map(int, _stat(pid)[11:15])) / _TICKS_PER_SECOND


def _proportional_kib(pid: int) -> int:
    """Return a process's share of the memory it uses (PSS), or all of it where that is hidden."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return _status(pid).get("VmRSS", 0)
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _status(pid: int) -> dict[str, int]:
    """Return the sizes in /proc/PID/status, in KiB."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.splitlines() if line.endswith("kB"))
    return {name: int(value.split()[0]) for name, value in pairs}
