"""Work tree of a clone, compared with a commit: files that differ, read as data.

Law kept: the sandbox cannot move its own wall. Git never runs in the work tree, whose attributes,
nested repositories and links it would obey. Each directory is opened in the one above it and no
link is followed, so that a directory that is swapped while a run goes on leads nowhere else.
Bounded; what was not looked at is named.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import BinaryIO

from claude_proxy.deferred.data_classes import dataclass

MAX_ENTRIES = 1_000_000
MAX_DEPTH = 100
MAX_BYTES = 16 * 1024 * 1024  # of a file that is shown; larger ones are only compared
MAX_COMPARED = 16 * 1024**3  # of all files together: a sparse file costs its writer nothing

FILE, EXECUTABLE, LINK, GITLINK = "100644", "100755", "120000", "160000"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PIECE = 1024 * 1024

type IsIgnored = Callable[[bytes, bool], bool]  # a path, and whether it is a directory
type NoteRules = Callable[[bytes, bytes], None]  # a directory, and the text of its .gitignore
type WriteBlob = Callable[[bytes], str]  # returns the name of the object


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a commit or of the work tree: its mode as git writes it, and its object."""

    mode: str
    object: str


@dataclass(slots=True)
class Differences:
    """What differs from the commit; paths are relative and may hold any bytes but NUL."""

    changed: dict[bytes, Entry | None] = field(default_factory=dict)  # None: removed
    large: list[bytes] = field(default_factory=list)  # differ, and are too large to be shown
    nested: list[bytes] = field(default_factory=list)  # directories with repositories of their own
    unread: list[bytes] = field(default_factory=list)  # neither file, directory nor link, or closed

    @property
    def count(self) -> int:
        """How many files hold work that no commit of the clone has."""
        return len(self.changed) + len(self.large) + len(self.nested) + len(self.unread)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a work tree is read."""

    is_ignored: IsIgnored
    note_rules: NoteRules
    write: WriteBlob
    algorithm: str = "sha1"


def differences(tree: Path, commit: Mapping[bytes, Entry], reading: Reading) -> Differences:
    """Compare a work tree with the files of a commit; OSError if there is no such tree."""
    walk = _Walk(commit, reading)
    root = os.open(tree, _DIRECTORY)
    try:
        walk.look_into(root, b"", 0)
    finally:
        os.close(root)
    walk.note_removed()
    return walk.found


def blob_name(data: bytes, algorithm: str) -> str:
    """Return the name that git gives to a file with this content."""
    return hashlib.new(algorithm, b"blob %d\0%b" % (len(data), data)).hexdigest()


class _Walk:
    def __init__(self, commit: Mapping[bytes, Entry], reading: Reading) -> None:
        self.found = Differences()
        self._commit = commit
        self._reading = reading
        self._left = MAX_ENTRIES
        self._bytes_left = MAX_COMPARED
        self._seen: set[bytes] = set()
        self._closed: list[bytes] = []  # directories that were not looked into
        self._directories = {
            path[:at] for path in commit for at in range(len(path)) if path[at : at + 1] == b"/"
        }

    def look_into(self, directory: int, prefix: bytes, depth: int) -> None:
        """Compare everything in a directory."""
        names = sorted(os.fsencode(name) for name in os.listdir(directory))
        if b".gitignore" in names:
            self._note_rules(directory, prefix)
        for name in names:
            if _is_git(name):
                if prefix:
                    self.found.nested.append(prefix[:-1])
                continue
            self._left -= 1
            if self._left < 0:
                self._cut_off(prefix)
                return
            try:
                kind = os.stat(name, dir_fd=directory, follow_symlinks=False)
                self._take(directory, prefix + name, kind, depth)
            except OSError:
                self._leave_out(prefix + name)

    def note_removed(self) -> None:
        """Note the files of the commit that are not there."""
        closed = tuple(self._closed)
        for path in self._commit.keys() - self._seen:
            if not path.startswith(closed):
                self.found.changed[path] = None

    def _take(self, directory: int, path: bytes, kind: os.stat_result, depth: int) -> None:
        name = path.rpartition(b"/")[2]
        if stat.S_ISDIR(kind.st_mode):
            self._take_directory(directory, name, path, depth)
        elif path not in self._commit and self._reading.is_ignored(path, False):
            return
        elif stat.S_ISREG(kind.st_mode):
            self._compare_file(directory, name, path)
        elif stat.S_ISLNK(kind.st_mode):
            target = os.fsencode(os.readlink(name, dir_fd=directory))
            self._compare(path, LINK, target)
        else:
            self._leave_out(path)

    def _take_directory(self, directory: int, name: bytes, path: bytes, depth: int) -> None:
        expected = self._commit.get(path)
        if expected is not None and expected.mode == GITLINK:
            self._seen.add(path)
            if _has_repository(directory, name):
                self.found.nested.append(path)
            return
        if path not in self._directories:
            if self._reading.is_ignored(path, True):
                return
            if _has_repository(directory, name):
                self.found.nested.append(path)
                return
        if depth >= MAX_DEPTH or self._left <= 0:
            self._leave_out(path)
            return
        below = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            self.look_into(below, path + b"/", depth + 1)
        finally:
            os.close(below)

    def _leave_out(self, path: bytes) -> None:
        self._seen.add(path)
        self._closed.append(path + b"/")
        self.found.unread.append(path)

    def _cut_off(self, prefix: bytes) -> None:
        """Stop in a directory that has more entries than are looked at."""
        self._closed.append(prefix)
        self.found.unread.append(prefix[:-1] or b".")

    def _compare_file(self, directory: int, name: bytes, path: bytes) -> None:
        descriptor = os.open(name, _PLAIN, dir_fd=directory)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor with special flags
            kind = os.fstat(descriptor)
            if not stat.S_ISREG(kind.st_mode):
                self._leave_out(path)
                return
            mode = EXECUTABLE if kind.st_mode & 0o100 else FILE
            if self._bytes_left <= 0:
                self._leave_out(path)
                return
            data = file.read(MAX_BYTES + 1)
            self._bytes_left -= len(data)
            if len(data) <= MAX_BYTES:
                self._compare(path, mode, data)
                return
            self._seen.add(path)
            expected = self._commit.get(path)
            if expected is None or Entry(mode, self._name_of(file, kind, data)) != expected:
                self.found.large.append(path)

    def _name_of(self, file: BinaryIO, kind: os.stat_result, begun: bytes) -> str:
        """Return the name of a large file, whose beginning was read; empty if that is too much."""
        digest = hashlib.new(self._reading.algorithm, b"blob %d\0%b" % (kind.st_size, begun))
        while self._bytes_left > 0:
            piece = file.read(_PIECE)
            if not piece:
                return digest.hexdigest()
            digest.update(piece)
            self._bytes_left -= len(piece)
        return ""

    def _compare(self, path: bytes, mode: str, data: bytes) -> None:
        self._seen.add(path)
        expected = self._commit.get(path)
        entry = Entry(mode, blob_name(data, self._reading.algorithm))
        if entry == expected:
            return
        if mode != LINK and b"\r\n" in data:
            # Checked out with the line ends that an attribute asks for.
            plain = data.replace(b"\r\n", b"\n")
            if Entry(mode, blob_name(plain, self._reading.algorithm)) == expected:
                return
        self._reading.write(data)
        self.found.changed[path] = entry

    def _note_rules(self, directory: int, prefix: bytes) -> None:
        try:
            descriptor = os.open(b".gitignore", _PLAIN, dir_fd=directory)
        except OSError:
            return
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor with special flags
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                self._reading.note_rules(prefix, file.read(MAX_BYTES))


def _is_git(name: bytes) -> bool:
    """Tell whether git, on some file system, takes this for the name of its directory."""
    return name.lower().rstrip(b". ") == b".git"


def _has_repository(directory: int, name: bytes) -> bool:
    descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        return any(_is_git(os.fsencode(inner)) for inner in os.listdir(descriptor))  # noqa: PTH208
    finally:
        os.close(descriptor)
