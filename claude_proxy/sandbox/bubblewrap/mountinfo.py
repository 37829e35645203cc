"""Mount check: compares the mounts of a sandbox with its plan, before COMMAND starts; pure.

Law kept: no quiet downgrade. Between planning and mounting, an agent of another run in the same
project can replace a directory with a link. bwrap then mounts another file, or mounts it elsewhere;
this check finds both.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.sandbox.plan.model import Mount, MountKind, SandboxPlan
from claude_proxy.sandbox.plan.path_texts import is_at_or_below, prefix_of

_OCTAL = lazy_pattern(r"\\([0-7]{3})")
_FIELDS = 5
_OWN = (Path("/"), Path("/proc"), Path("/dev"))  # bwrap mounts more below these


@dataclass(frozen=True, slots=True)
class _MountPoint:
    device: str
    root: Path  # within its file system


def mismatches(planned: SandboxPlan, inside: str, outside: str) -> tuple[Path, ...]:
    """Return each path at which a sandbox differs from its plan.

    `inside` and `outside` are the texts of /proc/PID/mountinfo of the sandbox and of the launcher.
    """
    found, machine = _read(inside), _read(outside)
    missing = [
        m.at
        for m in planned.mounts
        if _is_a_mount(m) and m.at not in found and not _is_behind_a_link(m, planned, found)
    ]
    allowed = {m.at for m in planned.mounts} | set(_mounted_below(planned, machine))
    more = [at for at in found if at not in allowed and not _is_of_bwrap(at)]
    there = [m for m in planned.mounts if m.at in found]
    other = [m.at for m in there if _is_other(m, planned, found, machine)]
    return tuple(dict.fromkeys((*missing, *more, *other)))


def places_in(raw: bytes) -> frozenset[Path]:
    """Return the paths that have a mount of their own, of the content of /proc/PID/mountinfo."""
    return frozenset(_read(raw.decode("utf-8", "surrogateescape")))


def _read(text: str) -> dict[Path, _MountPoint]:
    """Return the mount at each path; of several on one path, the last."""
    found = {}
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) >= _FIELDS:
            found[_path(fields[4])] = _MountPoint(fields[2], _path(fields[3]))
    return found


def _path(text: str) -> Path:
    # The kernel escapes only space, tab, line feed and backslash, which are ASCII (proc(5)).
    return Path(_OCTAL.sub(lambda found: chr(int(found[1], 8)), text))


def _is_a_mount(mount: Mount) -> bool:
    return mount.kind not in {MountKind.FILE, MountKind.LINK}


def _mounted_below(planned: SandboxPlan, machine: Mapping[Path, _MountPoint]) -> Iterator[Path]:
    """Yield the paths inside of host file systems that are mounted below a visible path."""
    places = [str(place) for place in machine]
    for mount in planned.mounts:
        if not mount.shows:
            continue
        source = Path(str(mount.source))
        prefix = prefix_of(source)
        for place in places:
            if place.startswith(prefix):
                yield mount.at / place[len(prefix) :]
            elif place == str(source):
                yield mount.at


def _is_of_bwrap(at: Path) -> bool:
    return at in _OWN or any(parent in _OWN[1:] for parent in at.parents)


def _is_behind_a_link(
    mount: Mount, planned: SandboxPlan, found: Mapping[Path, _MountPoint]
) -> bool:
    """Tell whether this path is a link, which no agent can change, to what was to be mounted.

    If the link itself is visible, bwrap mounts at its target, which shows the same thing already.
    """
    source = Path(str(mount.source))
    if not mount.shows or source == mount.at or source not in found:
        return False
    holders = [m for m in planned.mounts if m is not mount and is_at_or_below(mount.at, m.at)]
    nearest = max(holders, key=lambda m: len(m.at.parts), default=None)
    return nearest is not None and nearest.kind is MountKind.READ


def _is_other(
    mount: Mount,
    planned: SandboxPlan,
    found: Mapping[Path, _MountPoint],
    machine: Mapping[Path, _MountPoint],
) -> bool:
    """Tell whether a mount shows another file than the one at this path in its directory."""
    parent = _writable_parent(mount, planned)
    if parent is None or parent.at not in found:
        return False
    this, outer = found[mount.at], found[parent.at]
    source = Path(str(mount.source))
    within = _MountPoint(outer.device, outer.root / source.relative_to(Path(str(parent.source))))
    # Or a file system that root has mounted inside that directory, which no agent can do.
    return this not in {within, _mounted_at(source, machine)}


def _mounted_at(path: Path, machine: Mapping[Path, _MountPoint]) -> _MountPoint | None:
    """Return the device and root of a path on the host, without following links."""
    holders = [place for place in machine if is_at_or_below(path, place)]
    nearest = max(holders, key=lambda place: len(place.parts), default=None)
    if nearest is None:
        return None
    mount = machine[nearest]
    return _MountPoint(mount.device, mount.root / path.relative_to(nearest))


def _writable_parent(mount: Mount, planned: SandboxPlan) -> Mount | None:
    """Return the writable mount that contains the source of this one; None if there is none."""
    if not mount.shows:
        return None
    source = Path(str(mount.source))
    holders = [
        other
        for other in planned.mounts
        if other.kind is MountKind.WRITE
        and other.at != mount.at
        and str(source).startswith(prefix_of(Path(str(other.source))))
    ]
    return min(holders, key=lambda other: len(other.at.parts), default=None)
