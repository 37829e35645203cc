"""Usable processors: those this process may run on, within the quota of its control group."""

import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def usable(own_group: Path = _OWN_GROUP, groups: Path = _GROUPS) -> int:
    """Return how many processors the threads of this process could keep busy; at least one."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([count, *_quotas(own_group, groups)]))


def _quotas(own_group: Path, groups: Path) -> list[int]:
    """Return the whole processors that the group of this process, and each above it, may use."""
    try:
        lines = own_group.read_text("ascii").splitlines()
    except OSError:
        return []
    name = next((line[3:] for line in lines if line.startswith("0::")), None)
    if name is None:
        return []
    group = groups / name.strip("/")
    return [
        quota
        for place in (group, *group.parents)
        if place.is_relative_to(groups) and (quota := _quota(place / "cpu.max")) is not None
    ]


def _quota(file: Path) -> int | None:
    """Return the quota in a `cpu.max`, "MICROSECONDS PERIOD" or "max PERIOD"; None: no limit."""
    try:
        quota, period = file.read_text("ascii").split()
        return int(quota) // int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
