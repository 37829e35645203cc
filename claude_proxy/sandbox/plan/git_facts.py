"""Facts about the Git directories of a project, and those of a run mounted over them; pure."""

from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass

# On a file system of the sandbox's own, where nothing outside can replace an entry.
OBJECTS = Path("/run/claude-proxy/objects")


@dataclass(frozen=True, slots=True)
class GitDirectory:
    """One Git directory of the host, and the run's own that is mounted over it."""

    host: Path  # its real path, which is its path inside as well
    private: Path
    start: Path  # a copy of the refs as they were at the start
    hooks: Path | None = None  # the host's, if there are any
    worktrees: tuple[str, ...] = ("",)  # whose files the run shares: "" or "worktrees/NAME"
    within: bool = False  # a submodule's: its private directory is in another one
    stores: tuple[int, ...] = ()  # numbers of the object stores that it needs


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A directory of objects of the host; the first of a Git directory may have LFS beside it."""

    path: Path
    has_alternates: bool = False
    lfs: Path | None = None

    @staticmethod
    def inside(number: int) -> Path:
        """Return its path inside."""
        return OBJECTS / str(number) / "objects"


@dataclass(frozen=True, slots=True)
class GitMounts:
    """The Git directories of a project, with everything that leads to them."""

    directories: tuple[GitDirectory, ...] = ()
    files: tuple[Path, ...] = ()  # `.git` files in the project
    links: tuple[tuple[Path, Path], ...] = ()  # `.git` links in the project, and their targets
    stores: tuple[ObjectStore, ...] = ()
    complete: bool = True  # whether all of the project was looked through for repositories

    def covers(self, path: Path) -> bool:
        """Tell whether a path of the host is in a Git directory that is mounted over."""
        return any(path.is_relative_to(directory.host) for directory in self.directories)
