"""Guarded mounts of a sandbox: protection on directory entries that the host can replace; pure.

The kernel takes a mount away when the entry below it is replaced outside. A mount on a file system
of the sandbox's own stays whatever happens to its source, so it is not guarded.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from claude_proxy.sandbox.plan import path_texts
from claude_proxy.sandbox.plan.model import GuardedMount, GuardKind, Mount, MountKind


def guarded_mounts(
    mounts: Iterable[Mount], hidden: Collection[Path], awaited: Mapping[Path, GuardKind]
) -> tuple[GuardedMount, ...]:
    """Return the mounts to guard, and the paths inside to protect once something appears there.

    `hidden` are the places inside whose cover is empty.
    """
    by_place = {str(mount.at): mount for mount in mounts}
    guarded = {
        mount.at: kind
        for mount in by_place.values()
        if (kind := _kind_of(mount, path_texts.nearest_above(mount.at, by_place), hidden))
        is not None
    }
    for at, kind in awaited.items():
        holder = path_texts.nearest_above(at, by_place)
        if str(at) not in by_place and _needs(kind, holder):
            guarded[at] = kind
    kept = {at: kind for at, kind in guarded.items() if kind is not GuardKind.PIN}
    pins = {
        at: kind
        for at, kind in guarded.items()
        if kind is GuardKind.PIN and any(path_texts.is_at_or_below(one, at) for one in kept)
    }
    return tuple(
        GuardedMount(kind, _base_of(at, by_place, {*kept, *pins}), at)
        for at, kind in sorted({**kept, **pins}.items())
    )


def _kind_of(mount: Mount, holder: Mount | None, hidden: Collection[Path]) -> GuardKind | None:
    if holder is None or not holder.shows or mount.kind is MountKind.LINK:
        return None
    own = Path(str(holder.source)) / mount.at.relative_to(holder.at)
    if mount.at in hidden:
        kind = GuardKind.HIDE
    elif not mount.shows or Path(str(mount.source)) != own:
        kind = GuardKind.OWN
    else:
        kind = GuardKind.READ if mount.kind is MountKind.READ else GuardKind.PIN
    return kind if _needs(kind, holder) else None


def _needs(kind: GuardKind, holder: Mount | None) -> bool:
    """Tell whether losing the protection would let a process read or write more."""
    if holder is None or not holder.shows:
        return False
    return holder.kind is MountKind.WRITE or kind is GuardKind.HIDE


def _base_of(at: Path, by_place: Mapping[str, Mount], guarded: set[Path]) -> Path:
    """Return the nearest mount above that is not guarded itself."""
    holders = (by_place[text].at for text in path_texts.above(at) if text in by_place)
    return next(holder for holder in holders if holder not in guarded)
