"""Mount layout of one sandbox: which path shows what, and what is writable; pure.

Nothing is mounted here. Each path has one mount. Mounts are sorted by depth, so that what hides
something comes after what would show it.
"""

from collections.abc import Iterator
from pathlib import Path

from claude_proxy.sandbox.plan import path_texts
from claude_proxy.sandbox.plan.model import Mount, MountKind


class Layout:
    """The mounts of one sandbox, while they are collected."""

    def __init__(self, tmpfs_size: int | None = None) -> None:
        self._tmpfs_size = tmpfs_size
        self.files: dict[str, bytes] = {}
        self._mounts: dict[Path, Mount] = {}
        self._by_source: dict[Path, list[Mount]] = {}
        self._pins: dict[Path, Path] = {}  # each with the mount that it is a part of

    def mounts(self) -> list[Mount]:
        """Return all mounts in the order in which bwrap makes them."""
        return sorted(self._mounts.values(), key=lambda mount: len(mount.at.parts))

    def words(self) -> Iterator[str]:
        """Yield the options of bwrap for all mounts."""
        mounts = self.mounts()
        for mount in mounts:
            if mount.kind is MountKind.EMPTY and self._tmpfs_size is not None:
                yield from ("--size", str(self._tmpfs_size))
            if mount.mode is not None:
                yield from ("--perms", mount.mode)
            yield mount.kind.value
            if mount.source is not None:
                yield str(mount.source)
            yield str(mount.at)
        for mount in mounts:
            if mount.sealed:
                yield from ("--remount-ro", str(mount.at))
        yield from ("--remount-ro", "/")

    def put(self, mount: Mount) -> None:
        """Add a mount; it replaces one at the same path."""
        self._pins.pop(mount.at, None)
        if mount.kind is MountKind.READ:
            self._drop_pins_below(mount.at)
        self._mounts[mount.at] = mount
        if mount.shows:
            self._by_source.setdefault(Path(str(mount.source)), []).append(mount)

    def showing(self, path: Path) -> list[Mount]:
        """Return the mounts that show a path of the host, the most specific first."""
        return [
            mount
            for place in (path, *path.parents)
            for mount in self._by_source.get(place, ())
            if self._mounts[mount.at] is mount
        ]

    def add_file(self, at: Path, content: bytes) -> None:
        """Add a generated file, in a directory that is created for the run."""
        placeholder = f"{{file:{at}}}"
        self.files[placeholder] = content
        self.put(Mount(MountKind.FILE, at, placeholder, mode="0444"))

    def cover_file(self, at: Path, content: bytes) -> None:
        """Show generated content instead of an existing file."""
        placeholder = f"{{blank:{at}}}"
        self.files[placeholder] = content
        self.put(Mount(MountKind.BLANK, at, placeholder, mode="0444"))

    def writable_places(self, real: Path) -> list[Path]:
        """Return the paths inside where a file of the host is visible and writable."""
        places = []
        for mount in self.showing(real):
            at = mount.at / real.relative_to(str(mount.source))
            if mount.kind is MountKind.WRITE and self.nearest(at) is mount:
                places.append(at)
        return places

    def covered_in(self, directory: Path) -> Iterator[Path]:
        """Yield the paths in a directory of the host at which something else is shown inside."""
        prefix = path_texts.prefix_of(directory)
        for mount in self._mounts.values():
            if str(mount.at).startswith(prefix) and mount.source != mount.at:
                yield mount.at

    def pin_above(self, at: Path) -> None:
        """Keep the directories above from being renamed, by mounting each on itself.

        A mount moves with its parents; a new directory at the old path would be writable.
        """
        below = self.nearest(at)
        if below is None or below.kind is not MountKind.WRITE or below.at == at:
            return
        source = Path(str(below.source))
        missing = at.relative_to(below.at).parts[:-1]
        for depth in range(1, len(missing) + 1):
            part = Path(*missing[:depth])
            self.put(Mount(MountKind.WRITE, below.at / part, source / part))
            self._pins[below.at / part] = self._pins.get(below.at, below.at)

    def _drop_pins_below(self, at: Path) -> None:
        """Drop the pins in what becomes read-only as a whole: each is writable itself."""
        for pin, base in list(self._pins.items()):
            if pin != at and pin.is_relative_to(at) and at.is_relative_to(base):
                del self._pins[pin], self._mounts[pin]

    def place_of(self, path: Path, real: Path) -> Path:
        """Return where to show something: at its own path, unless a link may be there."""
        return real if self.is_shown(path) else path

    def nearest(self, path: Path) -> Mount | None:
        """Return the mount that contains `path`."""
        for place in (path, *path.parents):
            if place in self._mounts:
                return self._mounts[place]
        return None

    def is_shown(self, path: Path) -> bool:
        """Tell whether something of the host is visible at a path."""
        nearest = self.nearest(path)
        if nearest is None:
            return False
        if nearest.kind is MountKind.LINK and nearest.at != path:
            return self.is_shown(Path(str(nearest.source)) / path.relative_to(nearest.at))
        return nearest.shows or nearest.kind is MountKind.LINK

    def is_written(self, path: Path) -> bool:
        """Tell whether something of the host is writable at a path."""
        nearest = self.nearest(path)
        return nearest is not None and nearest.kind is MountKind.WRITE

    def holds(self, directory: Path) -> bool:
        """Tell whether something of the host is visible at a directory or below it."""
        if self.is_shown(directory):
            return True
        prefix = path_texts.prefix_of(directory)
        return any(
            mount.shows or mount.kind is MountKind.LINK
            for mount in self._mounts.values()
            if f"{mount.at}/".startswith(prefix)
        )
