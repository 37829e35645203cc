"""Working directories of builds and updates, and the log of each.

A directory is locked while its work is alive, so the next start removes what a kill has left
behind, and nothing that is in use. Law kept: what is removed is below the directory of the state,
by descriptor and without following links, and on one file system only.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.store import make_directory

DIRECTORY = "builds"

_LOCK = ".lock"
_LOG = ".log"
_LOGS_KEPT = 10


@dataclass(frozen=True, slots=True)
class WorkDirectory:
    """The directory of one build or update, and where its log is written."""

    name: str
    path: Path
    log: Path

    def keep_log(self, text: bytes) -> Path:
        """Append to the log, which stays; return its path."""
        with open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:  # noqa: PTH123 - the mode is the point
            file.write(text)
        return self.log


type Removed = Callable[[Path], None]


@contextlib.contextmanager
def work_directory(statedir: Path, what: str, removed: Removed) -> Iterator[WorkDirectory]:
    """Yield a new directory; remove it on the way out, and before that those of dead works.

    `removed` is called with the directory of each dead work, to remove what it had outside.
    """
    above = statedir / DIRECTORY
    make_directory(above)
    name = f"{what}-{secrets.token_hex(4)}"
    path = above / name
    with _locked(above / _LOCK):
        _sweep(above, removed)
        path.mkdir(mode=0o700)
        held = _lock(path)
    try:
        yield WorkDirectory(name, path, above / f"{name}{_LOG}")
    finally:
        _remove(path)
        if held is not None:
            os.close(held)


def _sweep(above: Path, removed: Removed) -> None:
    """Remove the directories of dead works, and all but the newest logs."""
    for path in above.iterdir():
        if path.is_symlink() or not path.is_dir():
            continue
        held = _lock(path)
        if held is not None:
            with contextlib.suppress(OSError):
                removed(path)
                _remove(path)
            os.close(held)
    logs = sorted(above.glob(f"*{_LOG}"), key=lambda path: path.lstat().st_mtime)
    for path in logs[:-_LOGS_KEPT]:
        path.unlink(missing_ok=True)


def _lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock of a directory; None: its work is alive."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(path: Path) -> None:
    # What a program has mounted there went with its namespace; a mount that is there all the same
    # is not ours.
    if not _holds_mounts(path):
        shutil.rmtree(path, ignore_errors=True)


def _holds_mounts(path: Path) -> bool:
    below = os.fsencode(path) + b"/"
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    points: Sequence[bytes] = [line.split(b" ")[4] for line in lines]
    return any((point + b"/").startswith(below) for point in points)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(
            f"the directory of builds cannot be used: {(error.strerror or '').lower()}",
            where=str(path),
            fix="make room, or name another directory with --statedir",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
