"""Protected files of a plan: what of the host a mount keeps from being written, or read; pure."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from claude_proxy.sandbox.plan.model import Mount, MountKind
from claude_proxy.sandbox.plan.path_texts import nearest_above


def protected_files(mounts: Iterable[Mount]) -> Iterator[Path]:
    """Yield the paths of the host that are protected inside something that is writable or shown.

    By another name there, each could be written, or read, all the same.
    """
    by_place = {str(mount.at): mount for mount in mounts}
    for mount in by_place.values():
        at = mount.at
        holder = nearest_above(at, by_place)
        if holder is None or not holder.shows:
            continue
        if mount.kind is MountKind.READ and holder.kind is MountKind.WRITE:
            yield Path(str(mount.source))
        elif mount.kind in {MountKind.BLANK, MountKind.EMPTY}:
            yield Path(str(holder.source)) / at.relative_to(holder.at)
