"""Compares the mounts that a sandbox got with those of its plan, before its command starts; pure.

Law kept: no quiet downgrade (11). Between the look at a project and its mounting, an agent of
another run in the same project can put a link in the place of a directory. What bwrap then mounts
is something else, or somewhere else; either is seen here.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from claude_proxy.sandbox.plan.model import Mount, MountKind, SandboxPlan

_OCTAL = re.compile(r"\\([0-7]{3})")
_FIELDS = 5
_OWN = (Path("/"), Path("/proc"), Path("/dev"))  # bwrap mounts more below these


@dataclass(frozen=True, slots=True)
class _Found:
    device: str
    root: Path  # within its file system


def mismatches(planned: SandboxPlan, inside: str, outside: str) -> tuple[Path, ...]:
    """Return each place where a sandbox has something else than planned; none if all is well.

    `inside` and `outside` are the texts of /proc/PID/mountinfo of the sandbox and of the launcher.
    """
    found, machine = _read(inside), _read(outside)
    missing = [
        m.at
        for m in planned.mounts
        if _is_a_mount(m) and m.at not in found and not _is_behind_a_link(m, planned, found)
    ]
    allowed = {m.at for m in planned.mounts} | set(_brought_along(planned, machine))
    more = [at for at in found if at not in allowed and not _is_of_bwrap(at)]
    there = [m for m in planned.mounts if m.at in found]
    other = [m.at for m in there if _is_another(m, planned, found, machine)]
    return tuple(dict.fromkeys((*missing, *more, *other)))


def _read(text: str) -> dict[Path, _Found]:
    """Return what is mounted at each place; of several over each other, the last."""
    found = {}
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) >= _FIELDS:
            found[_path(fields[4])] = _Found(fields[2], _path(fields[3]))
    return found


def _path(text: str) -> Path:
    # Only a space, a tab, a line break and a backslash are spelled so, and these are ASCII.
    return Path(_OCTAL.sub(lambda found: chr(int(found[1], 8)), text))


def _is_a_mount(mount: Mount) -> bool:
    return mount.how not in {MountKind.FILE, MountKind.LINK}


def _brought_along(planned: SandboxPlan, machine: Mapping[Path, _Found]) -> Iterator[Path]:
    """Yield where file systems of the machine appear that are mounted below what is shown."""
    for mount in planned.mounts:
        source = Path(str(mount.source))
        for place in machine if mount.shows else ():
            if place.is_relative_to(source):
                yield mount.at / place.relative_to(source)


def _is_of_bwrap(at: Path) -> bool:
    return at in _OWN or any(parent in _OWN[1:] for parent in at.parents)


def _is_behind_a_link(mount: Mount, planned: SandboxPlan, found: Mapping[Path, _Found]) -> bool:
    """Tell whether a link that no agent can change leads from here to what was to be mounted.

    Where the link itself is shown, bwrap mounts at its end, over what lies there anyway.
    """
    source = Path(str(mount.source))
    if not mount.shows or source == mount.at or source not in found:
        return False
    holders = [m for m in planned.mounts if m is not mount and mount.at.is_relative_to(m.at)]
    nearest = max(holders, key=lambda m: len(m.at.parts), default=None)
    return nearest is not None and nearest.how is MountKind.READ


def _is_another(
    mount: Mount, planned: SandboxPlan, found: Mapping[Path, _Found], machine: Mapping[Path, _Found]
) -> bool:
    """Tell whether what is mounted here is not what lies here in the directory around it."""
    around = _around(mount, planned)
    if around is None or around.at not in found:
        return False
    this, outer = found[mount.at], found[around.at]
    source = Path(str(mount.source))
    within = _Found(outer.device, outer.root / source.relative_to(Path(str(around.source))))
    # Or of what the machine's root has mounted inside that directory, which no agent can do.
    return this not in {within, _lying_at(source, machine)}


def _lying_at(path: Path, machine: Mapping[Path, _Found]) -> _Found | None:
    """Return what lies at a path, by its name and without following links."""
    holders = [place for place in machine if path.is_relative_to(place)]
    nearest = max(holders, key=lambda place: len(place.parts), default=None)
    if nearest is None:
        return None
    mount = machine[nearest]
    return _Found(mount.device, mount.root / path.relative_to(nearest))


def _around(mount: Mount, planned: SandboxPlan) -> Mount | None:
    """Return the writable mount that holds what this one shows; None: no agent can write it."""
    if not mount.shows:
        return None
    source = Path(str(mount.source))
    holders = [
        other
        for other in planned.mounts
        if other.how is MountKind.WRITE
        and other.at != mount.at
        and source != Path(str(other.source))
        and source.is_relative_to(Path(str(other.source)))
    ]
    return min(holders, key=lambda other: len(other.at.parts), default=None)
