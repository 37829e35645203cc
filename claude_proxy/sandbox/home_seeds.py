"""Home seeds: copies of the user's settings, made once for the agent home of a project.

Bounded in size and number. No link is followed and no special file is read: an agent that could
write the user's directory in the past may have left one there. Times are kept, because agents sort
their sessions by them.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox import transcripts
from claude_proxy.sandbox.plan import agent_settings
from claude_proxy.sandbox.plan.model import AgentHome, Seed

_MOST_BYTES = 64 * 1024 * 1024  # of one seed
_MOST_ENTRIES = 5000
_SETTINGS_BYTES = 32 * 1024 * 1024  # of one file that is filtered
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_MIB = 1024 * 1024
_TRANSCRIPTS = "projects"  # the directory of Claude Code's, with one for each project


@dataclass(frozen=True, slots=True)
class _File:
    """One file that is to be copied: its path below the seed."""

    name: str
    size: int
    changed_ns: int


def copy_seed(seed: Seed, home: AgentHome, target: Path) -> list[str]:
    """Copy one seed to `target`, which no run sees yet; return what to tell the user.

    Raises OSError if the copy cannot be written. What cannot be read is left out, and named.
    """
    try:
        found = os.lstat(seed.source)
    except OSError:
        return []  # nothing there
    if seed.source in home.exposed:
        return [f"not copied: {seed.source}, which contains a credential that stays outside"]
    if stat.S_ISLNK(found.st_mode):
        return [f"not copied: {seed.source}, which is a symbolic link"]
    if stat.S_ISDIR(found.st_mode):
        return _copy_tree(seed.source, target, home.project)
    if stat.S_ISREG(found.st_mode):
        return _copy_settings(seed, home, target)
    return []


def read_plain(path: Path, limit: int = _SETTINGS_BYTES) -> tuple[bytes, os.stat_result] | None:
    """Return the content of a plain file, which is no link; None for anything else, or larger."""
    try:
        descriptor = os.open(path, _OPEN_FILE)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor with special flags
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return None
            content = file.read(limit + 1)
    except OSError:
        return None
    return (content, found) if len(content) <= limit else None


def _copy_settings(seed: Seed, home: AgentHome, target: Path) -> list[str]:
    read = read_plain(seed.source)
    if read is None:
        return [f"not copied: {seed.source}, which cannot be read or is too large"]
    content, found = read
    said = []
    filter_ = agent_settings.filter_of(seed.name, home.project, home.environ)
    if filter_ is not None:
        carried = filter_(content)
        if carried is None:
            return [f"not copied: {seed.source}, which cannot be read, or may be secret"]
        content = carried.content
        if carried.servers:
            said.append(f"MCP servers that start inside as outside: {', '.join(carried.servers)}")
        if carried.left_out:
            secret = ", ".join(carried.left_out)
            said.append(f"left out of the copy of {seed.source}, as it may be secret: {secret}")
    with contextlib.suppress(FileExistsError):  # named by two seeds
        write_new(target, content, stat.S_IMODE(found.st_mode) & 0o700)
        os.utime(target, ns=(found.st_mtime_ns, found.st_mtime_ns))
    return said


def write_new(target: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that does not exist yet, for the owner alone."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(target, _NEW_FILE, mode | 0o600), "wb") as file:  # noqa: PTH123 - the mode
        file.write(content)


def _copy_tree(source: Path, target: Path, project: Path) -> list[str]:
    found = _Found.in_directory(source)
    said = []
    with contextlib.closing(_Tree(source)) as tree:
        files = found.files
        if source.parent.name == _TRANSCRIPTS:
            names = transcripts.own((file.name for file in files), tree.head, project)
            own = [file for file in files if file.name in names]
            files = _newest_within(own)
            if len(files) < len(own):
                said.append(f"not copied: the oldest {len(own) - len(files)} files of {source}")
        if not found.complete or sum(file.size for file in files) > _MOST_BYTES:
            limits = f"{_MOST_BYTES // _MIB} MiB or {_MOST_ENTRIES} files"
            return [f"not copied: {source}, which is larger than {limits}"]
        for file in files:
            with contextlib.suppress(FileExistsError):  # named by two seeds
                tree.copy(file.name, target / file.name)
    if found.links:
        said.append(f"not copied: {found.links} symbolic links in {source}")
    return said


def _newest_within(files: list[_File]) -> list[_File]:
    chosen, size = [], 0
    for file in sorted(files, key=lambda one: -one.changed_ns):
        size += file.size
        if size > _MOST_BYTES:
            break
        chosen.append(file)
    return chosen


@dataclass(slots=True)
class _Found:
    """What is in a directory that is to be copied."""

    files: list[_File] = field(default_factory=list)  # the plain ones
    links: int = 0
    complete: bool = True

    @classmethod
    def in_directory(cls, source: Path) -> "_Found":
        """Look through a directory, as far as the limit reaches."""
        found = cls()
        waiting, seen = [""], 0
        while waiting:
            below = waiting.pop()
            for entry in _entries(source / below):
                seen += 1
                if seen > _MOST_ENTRIES:
                    found.complete = False
                    return found
                name = os.path.join(below, entry.name)  # noqa: PTH118 - quick
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                else:
                    found._note(name, entry)
        return found

    def _note(self, name: str, entry: os.DirEntry[str]) -> None:
        with contextlib.suppress(OSError):
            if entry.is_symlink():
                self.links += 1
            elif entry.is_file(follow_symlinks=False):
                seen = entry.stat(follow_symlinks=False)
                self.files.append(_File(name, seen.st_size, seen.st_mtime_ns))


def _entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        yield from entries


class _Tree:
    """A directory from which files are copied; each is opened without following links."""

    def __init__(self, source: Path) -> None:
        self._root = os.open(source, _OPEN_DIRECTORY)
        self._left = _MOST_BYTES  # a file may grow while it is read

    def close(self) -> None:
        """Close the directory."""
        os.close(self._root)

    def copy(self, name: str, target: Path) -> None:
        """Copy one file; nothing if it is gone, or something else by now."""
        descriptor = self._opened(name)
        if descriptor is None:
            return
        with open(descriptor, "rb"):  # noqa: PTH123 - a descriptor with special flags
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > self._left:
                return
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = stat.S_IMODE(found.st_mode) & 0o700 | 0o600
            with open(os.open(target, _NEW_FILE, mode), "wb") as copy:  # noqa: PTH123 - the mode
                _copy_bytes(descriptor, copy.fileno(), found.st_size)
            os.utime(target, ns=(found.st_mtime_ns, found.st_mtime_ns))
            self._left -= found.st_size

    def head(self, name: str, size: int) -> bytes:
        """Return the beginning of a plain file; empty for anything else."""
        descriptor = self._opened(name)
        if descriptor is None:
            return b""
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor with special flags
            return file.read(size) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""

    def _opened(self, name: str) -> int | None:
        *above, last = name.split("/")
        directory = os.dup(self._root)
        try:
            for part in above:
                below = os.open(part, _OPEN_DIRECTORY, dir_fd=directory)
                os.close(directory)
                directory = below
            return os.open(last, _OPEN_FILE, dir_fd=directory)
        except OSError:
            return None
        finally:
            os.close(directory)


def _copy_bytes(source: int, target: int, size: int) -> None:
    """Copy at most `size` bytes."""
    while size > 0:
        piece = os.read(source, min(size, _MIB))
        if not piece:
            return
        size -= len(piece)
        while piece:
            piece = piece[os.write(target, piece) :]
