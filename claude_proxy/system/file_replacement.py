"""File replacement: a file is read, changed and replaced as a whole, by one process at a time.

Law kept: a file is written whole or not at all. What a killed process has left unfinished is
removed by the next one that writes the same file, and when the proxy starts.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_UNFINISHED = ".unfinished"
_PAUSE_S = 0.05
_TRIES = 600  # half a minute: a writer holds the lock for milliseconds
_ABANDONED_S = 10.0  # a writer locks its file at once


class LockedError(OSError):
    """Another process has kept the file locked for too long."""


@contextmanager
def locked(path: Path, *, pause: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Keep other processes from replacing the file at `path`; OSError if that is impossible.

    The lock is a file beside it, as NFS cannot lock a directory, and the file itself is replaced.
    It is there only while somebody writes or waits. `LockedError` after half a minute.
    """
    lock = path.with_name(f".{path.name}.lock")
    descriptor = _acquired(lock, pause)
    try:
        remove_unfinished(path)
        yield
    finally:
        # Before it is unlocked: a process that waits for this file finds that it is gone.
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def replace(path: Path, data: bytes, mode: int) -> None:
    """Replace the file at `path` by one with these bytes and mode, also after a power failure.

    Who changes what was in it holds `locked`. OSError if it cannot be written; then nothing has
    changed and nothing is left.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_UNFINISHED}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(unfinished, flags, 0o600), "wb") as file:  # noqa: PTH123 - with its mode
            # For `sweep`, which may be looking at the file already, for microseconds.
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise
    with suppress(OSError):  # the file is in place; not every file system can do this
        _sync_directory(path.parent)


def sweep(directory: Path, now: float | None = None) -> None:
    """Remove the files that killed processes have left unfinished in a directory."""
    before = (time.time() if now is None else now) - _ABANDONED_S
    with suppress(OSError):
        for left in directory.glob(f".*{_UNFINISHED}"):
            with suppress(OSError):
                _remove_abandoned(left, before)


def _remove_abandoned(left: Path, before: float) -> None:
    """Remove a file unless its writer is at work; OSError then."""
    descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_mtime < before:
            left.unlink()
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _acquired(lock: Path, pause: Callable[[float], None]) -> int:
    """Return a descriptor of the lock file, locked."""
    for _ in range(_TRIES):
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(lock, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one that held it may have removed this very file.
            if os.path.samestat(os.fstat(descriptor), lock.lstat()):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        pause(_PAUSE_S)
    raise LockedError(f"another process has it locked ({lock.name})")


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes have left; the caller holds a lock, so that nobody writes."""
    for left in path.parent.glob(f".{path.name}.*{_UNFINISHED}"):
        with suppress(OSError):
            left.unlink()
