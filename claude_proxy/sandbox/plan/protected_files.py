"""Protected files of a plan: what of the host a mount keeps from being written, or read; pure."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from claude_proxy.sandbox.plan.model import Mount, MountKind


def protected_files(mounts: Iterable[Mount]) -> Iterator[Path]:
    """Yield the paths of the host that are protected inside something that is writable or shown.

    By another name there, each could be written, or read, all the same.
    """
    by_place = {mount.at: mount for mount in mounts}
    for at, mount in by_place.items():
        holder = _holder_of(at, by_place)
        if holder is None or not holder.shows:
            continue
        if mount.kind is MountKind.READ and holder.kind is MountKind.WRITE:
            yield Path(str(mount.source))
        elif mount.kind in {MountKind.BLANK, MountKind.EMPTY}:
            yield Path(str(holder.source)) / at.relative_to(holder.at)


def _holder_of(at: Path, by_place: Mapping[Path, Mount]) -> Mount | None:
    """Return the mount that holds the entry below a mount."""
    return next((by_place[above] for above in at.parents if above in by_place), None)
