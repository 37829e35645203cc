"""System directories that contain a secret: shown entry by entry, without it; pure.

Law kept: secrets stay outside. Every run sees /usr and /opt. If a secret or a file of this program
is there, its directory is assembled from the other entries, as a mount over it would disappear
when the file is replaced.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan import system_mounts
from claude_proxy.sandbox.plan.model import Mount, MountKind, PathInfo, PathKind
from claude_proxy.sandbox.plan.mount_layout import Layout
from claude_proxy.sandbox.plan.path_guards import PathGuards

_MOST_ENTRIES = 1000  # that are mounted one by one


def directories_to_list(
    walls: Iterable[Path], paths: Mapping[Path, PathInfo]
) -> Iterator[tuple[Path, Path]]:
    """Yield each directory of the system in which there is a wall, with its real path."""
    texts = [str(wall) for wall in walls]
    for name in system_mounts.DIRECTORIES:
        real = str(paths[Path(name)].real)
        for above in dict.fromkeys((name, real)):
            for text in texts:
                if text.startswith(f"{above}/"):
                    below = text[len(above) + 1 :].split("/")[:-1]
                    for depth in range(len(below) + 1):
                        yield Path(name, *below[:depth]), Path(real, *below[:depth])


class SystemWalls:
    """Adds the directories of the system to a layout."""

    def __init__(
        self,
        layout: Layout,
        paths: Mapping[Path, PathInfo],
        listings: Mapping[Path, tuple[str, ...]],
        guards: PathGuards,
    ) -> None:
        self._layout = layout
        self._paths = paths
        self._listings = listings
        self._guards = guards

    def add(self, path: Path) -> None:
        """Show a part of the system read-only, without what must not be visible."""
        if path in self._listings:
            self._add_entries(path)
        else:
            self._add_whole(path)

    def _add_whole(self, path: Path) -> None:
        """Show a link as a link, everything else read-only."""
        seen = self._paths[path]
        if seen.kind is PathKind.MISSING:
            return
        if seen.link is not None and self._layout.is_shown(seen.real):
            self._layout.put(Mount(MountKind.LINK, path, str(seen.real)))
        else:
            self._layout.put(Mount(MountKind.READ, path, seen.real))

    def _add_entries(self, path: Path) -> None:
        names = self._listings[path]
        if len(names) > _MOST_ENTRIES:
            raise ConfigError(
                "a secret, or a file of this program, is in a directory of the system that every "
                "run sees",
                where=str(path),
                fix="move it to your home, or to a directory of its own",
            )
        self._layout.put(Mount(MountKind.EMPTY, path, mode="0755", sealed=True))
        for name in names:
            entry = path / name
            if entry in self._listings or not self._guards.contains_secret(
                entry, self._paths[entry].real
            ):
                self.add(entry)
