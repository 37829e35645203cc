"""Files that root wrote in another user's repository or project, given to that user.

Law kept: the sandbox cannot move its own wall. No link is followed, and a file with a second name
may be another one's: neither is given away.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def repository(directory: Path) -> None:
    """Make what root has written in a repository the property of the repository's owner."""
    if os.geteuid() != 0:
        return
    with suppress(OSError):
        found = directory.stat()
        if found.st_uid != 0:
            for name, below in _written_by_root(directory):
                owner = (found.st_uid, found.st_gid)
                os.chown(name, *owner, dir_fd=below, follow_symlinks=False)


def files(project: Path, names: Iterable[str]) -> None:
    """Do so for files of a project, named by paths in it, and for the directories above them."""
    if os.geteuid() != 0:
        return
    with suppress(OSError):
        found = project.stat()
        if found.st_uid != 0:
            for name in names:
                _give(project, PurePosixPath(name).parts, (found.st_uid, found.st_gid))


def _give(project: Path, parts: tuple[str, ...], owner: tuple[int, int]) -> None:
    above = os.open(project, _DIRECTORY)
    try:
        with suppress(OSError):  # it was removed
            for at, part in enumerate(parts):
                seen = os.stat(part, dir_fd=above, follow_symlinks=False)
                is_link = stat.S_ISLNK(seen.st_mode) and seen.st_nlink == 1
                if seen.st_uid == 0 and (is_link or _is_ours(seen)):
                    os.chown(part, *owner, dir_fd=above, follow_symlinks=False)
                if at + 1 < len(parts):
                    below = os.open(part, _DIRECTORY, dir_fd=above)
                    os.close(above)
                    above = below
    finally:
        os.close(above)


def _written_by_root(place: Path) -> Iterator[tuple[str, int]]:
    for _, names, found, directory in os.fwalk(place, follow_symlinks=False):
        for name in (*names, *found):
            with suppress(OSError):
                seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if seen.st_uid == 0 and _is_ours(seen):
                    yield name, directory


def _is_ours(seen: os.stat_result) -> bool:
    plain = stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1
    return plain or stat.S_ISDIR(seen.st_mode)
