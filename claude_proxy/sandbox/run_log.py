"""Run log: what the helper processes of one run print, in the directory of the state.

A log is locked while a process of its run has it open, so that another start can tell the logs of
dead runs from those of living ones: it removes those that are empty, and all but the newest.
"""

import contextlib
import fcntl
import os
from dataclasses import field
from pathlib import Path
from typing import IO

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError

_LOGS_KEPT = 20


@dataclass(frozen=True, slots=True)
class RunLog:
    """The log of the helper processes of one run."""

    path: Path
    file: IO[bytes] = field(repr=False)

    def close(self) -> None:
        """Close it, and remove it if nothing was written."""
        self.file.close()
        with contextlib.suppress(OSError):
            if not self.path.stat().st_size:
                self.path.unlink()


def log_of(statedir: Path, name: str) -> Path:
    """Return where the log of a run is."""
    return statedir / "runs" / f"{name}.log"


def open_log(statedir: Path, name: str) -> RunLog:
    """Open the log of a run with mode 0600, and remove old logs; ConfigError if it fails."""
    path = log_of(statedir, name)
    folder = path.parent
    try:
        for directory in (*reversed(folder.parents), folder):
            # One by one: `parents=True` would create the parents with the mode of the umask.
            directory.mkdir(mode=0o700, exist_ok=True)
        _remove_old_logs(folder)
        return RunLog(path, _open_locked(path))
    except OSError as error:
        raise ConfigError(
            f"the log of the run cannot be written: {(error.strerror or '').lower()}",
            where=str(path),
            fix="make room, or name another directory with --statedir",
        ) from error


def _open_locked(path: Path) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    while True:
        file = open(os.open(path, flags, 0o600), "ab")  # noqa: PTH123, SIM115 - the mode, and it lives on
        # Helper processes inherit it with the file.
        fcntl.flock(file, fcntl.LOCK_SH)
        # Another start may have removed it before it was locked.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()


def _remove_old_logs(folder: Path) -> None:
    with contextlib.suppress(OSError):
        logs = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
        old = set(logs[:-_LOGS_KEPT])
        for path in logs:
            if path in old or not path.stat().st_size:
                _remove_unused(path)


def _remove_unused(path: Path) -> None:
    """Remove a log unless its run is alive."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)
