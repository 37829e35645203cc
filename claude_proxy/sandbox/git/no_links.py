"""Files of a directory that a sandbox writes, opened without following a symbolic link on the way.

Law kept: the sandbox cannot move its own wall. Each part of a path is opened in the directory that
was opened before it, so replacing one meanwhile leads nowhere else.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@contextmanager
def root_of(path: Path) -> Iterator[int]:
    """Open a directory by its path, whose last part must not be a link."""
    descriptor = os.open(path, _DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def directory_in(root: int, name: str) -> Iterator[int]:
    """Open a directory below another one; an empty name is that one itself."""
    descriptor = os.dup(root)
    try:
        for part in filter(None, name.split("/")):
            above = descriptor
            descriptor = os.open(part, _DIRECTORY, dir_fd=above)
            os.close(above)
        yield descriptor
    finally:
        os.close(descriptor)


def names_in(root: int, name: str) -> list[str]:
    """Return the sorted names in a directory; OSError if it is none."""
    with directory_in(root, name) as directory:
        return sorted(os.listdir(directory))  # noqa: PTH208 - by descriptor


def kind_of(root: int, name: str) -> int:
    """Return the file type of a path (stat.S_IFMT), 0 if nothing is there."""
    above, _, last = name.rpartition("/")
    with suppress(OSError), directory_in(root, above) as directory:
        return stat.S_IFMT(os.stat(last, dir_fd=directory, follow_symlinks=False).st_mode)
    return 0


@contextmanager
def file_in(root: int, name: str) -> Iterator[BinaryIO]:
    """Open a plain file for reading; OSError if it is anything else."""
    above, _, last = name.rpartition("/")
    with directory_in(root, above) as directory:
        descriptor = os.open(last, _FILE, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(22, "not a plain file", name)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor with special flags
        yield file


def text_in(root: int, name: str, limit: int) -> str:
    """Return a plain file's text; empty if it is none, or larger than `limit` bytes."""
    with suppress(OSError), file_in(root, name) as file:
        data = file.read(limit + 1)
        return data.decode("utf-8", "surrogateescape") if len(data) <= limit else ""
    return ""
