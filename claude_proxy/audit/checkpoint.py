"""Checkpoints: another thread and connection copies the write-ahead log into the database.

Law: the thread that decides never waits for a disk. In WAL mode with `synchronous=NORMAL` SQLite
waits (fsync) in two places: in a checkpoint, and in the first commit after the log was used up and
starts from its beginning. Both happen here.
"""

import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from claude_proxy.audit.database import BUSY_S, be_patient, connect, wal_of

# Some thousand decisions. Fewer would mean more fsyncs, more would be slower to read back.
ENOUGH_BYTES: Final = 4 * 1024 * 1024
# During a flood of decisions there is no pause in which the log could restart, so one is forced.
TOO_MUCH_BYTES: Final = 64 * 1024 * 1024

# To restart the log, a checkpoint takes the lock of the writers, then waits for readers. A reader
# may stay for hours, and a writer waits for a second at most, so it must not wait for a reader too.
PATIENCE_S: Final = 0.01
_TRIES: Final = 5  # writers in a flood hold the lock often, and get it between two tries
_BETWEEN_TRIES_S: Final = 0.02

_PAUSE_S: Final = 1.0
_END_S: Final = 10.0
_ROUNDS: Final = 2


class Checkpointer:
    """A thread that checkpoints when it is woken, once a second at most."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-checkpoint", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Ask for a checkpoint soon; never waits."""
        self._wake.set()

    def close(self) -> None:
        """End the thread after its current checkpoint."""
        self._stop.set()
        self._wake.set()
        self._thread.join(_END_S)

    def _run(self) -> None:
        self._wake.wait()
        while not self._stop.is_set():
            self._wake.clear()
            # The writer meets and reports the same errors of the file.
            with suppress(sqlite3.Error, OSError):
                checkpoint(self._path)
            self._stop.wait(_PAUSE_S)
            self._wake.wait()


def checkpoint(
    path: Path, *, too_much_bytes: int = TOO_MUCH_BYTES, patience_s: float = PATIENCE_S
) -> None:
    """Copy the log of the database at `path` into it, and restart the log if possible."""
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        # A restarted log is truncated to what it needs, so that its size shows how full it is.
        connection.execute("PRAGMA journal_size_limit=0")
        for _ in range(_ROUNDS):
            # Each round leaves what was written meanwhile, which is less every time.
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        _restart_log(connection)
        if wal_of(path).stat().st_size > too_much_bytes:
            # Decisions come without a pause, so they are delayed for a few milliseconds.
            be_patient(connection, patience_s)
            for _ in range(_TRIES):
                busy, _, _ = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
                if not busy:
                    break
                time.sleep(_BETWEEN_TRIES_S)
            be_patient(connection, BUSY_S)
            _restart_log(connection)


def _restart_log(connection: sqlite3.Connection) -> None:
    # The first commit after everything was copied restarts the log, which waits for the disk.
    connection.execute("UPDATE checkpoint SET at=?", (time.time_ns(),))
