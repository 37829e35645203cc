"""What the processes of a container use: counted from /proc, for every engine in the same way."""

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass

_STAT_PPID, _STAT_UTIME, _STAT_STIME, _STAT_RSS = 1, 11, 12, 21  # proc(5), after the name
_STAT_START = 19


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """What processes use together."""

    processes: int
    memory: int  # bytes in RAM; what several share is counted for each
    cpu_s: float  # of those that still run
    age_s: float  # since the first of them started


def usage_of(init: int) -> ProcessUsage | None:
    """Return what the first process of a container and all others of it use.

    None if it has ended, or if this user may not look.
    """
    try:
        namespace = os.stat(f"/proc/{init}/ns/pid").st_ino  # noqa: PTH116 - of no path's file
    except OSError:
        return None
    stats = _stats()
    members = {pid for pid in stats if _namespace_of(pid) == namespace}
    while more := {p for p, one in stats.items() if int(one[_STAT_PPID]) in members} - members:
        members |= more  # in namespaces of their own
    if init not in stats:
        return None
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGESIZE")
    found = [stats[pid] for pid in members if pid in stats]
    started = int(stats[init][_STAT_START]) / ticks
    return ProcessUsage(
        processes=len(found),
        memory=sum(int(one[_STAT_RSS]) for one in found) * page,
        cpu_s=sum(int(one[_STAT_UTIME]) + int(one[_STAT_STIME]) for one in found) / ticks,
        age_s=max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started),
    )


def _stats() -> Mapping[int, list[str]]:
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - names
        if name.isdigit():
            with contextlib.suppress(OSError):
                text = Path("/proc", name, "stat").read_text("utf-8", "replace")
                found[int(name)] = text.rpartition(")")[2].split()
    return found


def _namespace_of(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/pid").st_ino  # noqa: PTH116 - of no path's file
    return None
