"""Untrusted trees: measuring and removing directories that a run has written.

No link is followed, whatever is swapped meanwhile; depth, number and permissions do not matter.
Only two directories are open at any time, so a very deep tree can be removed as well.
"""

import contextlib
import os
import secrets
import stat
from collections import deque

from claude_proxy.deferred.data_classes import dataclass

_OPEN_DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_MOST_ENTRIES = 200_000  # that are measured: about half a second
_MOST_DEPTH = 64


@dataclass(frozen=True, slots=True)
class TreeSize:
    """How large a tree is on disk, in bytes; `complete` if everything was looked at."""

    size: int
    complete: bool


def size_of(descriptor: int) -> TreeSize:
    """Return the size of an open directory, as far as a bounded walk reaches."""
    total, left, complete = 0, _MOST_ENTRIES, True
    waiting: deque[tuple[str, ...]] = deque([()])
    while waiting:
        parts = waiting.popleft()
        directory = _opened(descriptor, parts)
        if directory is None:
            complete = False
            continue
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        return TreeSize(total, complete=False)
                    with contextlib.suppress(OSError):
                        found = entry.stat(follow_symlinks=False)
                        total += found.st_blocks * 512
                        if stat.S_ISDIR(found.st_mode):
                            if len(parts) < _MOST_DEPTH:
                                waiting.append((*parts, entry.name))
                            else:
                                complete = False
        except OSError:
            complete = False
        finally:
            os.close(directory)
    return TreeSize(total, complete)


def _opened(descriptor: int, parts: tuple[str, ...]) -> int | None:
    directory = os.dup(descriptor)
    for part in parts:
        try:
            below = os.open(part, _OPEN_DIRECTORY, dir_fd=directory)
        except OSError:
            return None
        finally:
            os.close(directory)
        directory = below
    # Of its own: a duplicate would share the position of the listing.
    try:
        return os.open(".", _OPEN_DIRECTORY, dir_fd=directory)
    except OSError:
        return None
    finally:
        os.close(directory)


def remove_tree(name: str, above: int) -> None:
    """Remove the directory `name` in the open directory `above`, with everything in it.

    Raises OSError if something is left; what another process removes meanwhile is no error. A
    directory in it is first moved to its top, so the depth does not matter.
    """
    try:
        top = _open_anyway(name, above)
    except FileNotFoundError:
        return
    try:
        while below := _unlink_files(top):
            for one in below:
                with contextlib.suppress(FileNotFoundError):
                    _flatten(one, top)
    finally:
        os.close(top)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=above)


def _flatten(name: str, top: int) -> None:
    """Remove one directory of the top, after moving the directories in it to the top."""
    directory = _open_anyway(name, top)
    try:
        for inner in _unlink_files(directory):
            os.close(_open_anyway(inner, directory))  # only a writable directory can be moved
            free = f".{secrets.token_hex(12)}"
            os.rename(inner, free, src_dir_fd=directory, dst_dir_fd=top)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=top)


def _unlink_files(directory: int) -> list[str]:
    """Remove everything in a directory but the directories, and return their names."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in found if is_directory]


def _open_anyway(name: str, above: int) -> int:
    """Open a directory whose permissions a run may have taken away."""
    pinned = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
    try:
        place = f"/proc/self/fd/{pinned}"  # the directory that is open, whatever is there by now
        os.chmod(place, 0o700)  # noqa: PTH101 - as above
        return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(pinned)
