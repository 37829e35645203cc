"""Moves the write-ahead log into the database, on a thread and a connection of its own.

The law it keeps: the thread that decides never waits for a disk. In WAL mode with
`synchronous=NORMAL` SQLite waits (fsync) at two places: in a checkpoint, and in the first
commit after the log was used up and begins anew. Both are brought about here.
"""

import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from claude_proxy.audit.database import BUSY_S, connect, wal_of

# Some thousand decisions. Less would mean more fsyncs, more would be slower to read back.
ENOUGH_BYTES: Final = 4 * 1024 * 1024
# A flood of decisions leaves no gap in which the log could begin anew; then one is made.
TOO_MUCH_BYTES: Final = 64 * 1024 * 1024

_PAUSE_S: Final = 1.0
_END_S: Final = 10.0
_ROUNDS: Final = 2


class Checkpointer:
    """A thread that checkpoints when it is woken, but not all the time."""

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
        """End the thread after what it is doing."""
        self._stop.set()
        self._wake.set()
        self._thread.join(_END_S)

    def _run(self) -> None:
        self._wake.wait()
        while not self._stop.is_set():
            self._wake.clear()
            # Whatever is wrong with the file, the writer meets it too and says so.
            with suppress(sqlite3.Error, OSError):
                checkpoint(self._path)
            self._stop.wait(_PAUSE_S)
            self._wake.wait()


def checkpoint(
    path: Path, *, too_much_bytes: int = TOO_MUCH_BYTES, patience_s: float = BUSY_S
) -> None:
    """Copy the log of the database at `path` into it, and let the log begin anew if possible."""
    with closing(connect(path, timeout_s=patience_s)) as connection:
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        # When the log begins anew it is cut to what it needs, so that its size says how full it is.
        connection.execute("PRAGMA journal_size_limit=0")
        for _ in range(_ROUNDS):
            # Each leaves what was written meanwhile, which is less every time.
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        _begin_anew(connection)
        if wal_of(path).stat().st_size > too_much_bytes:
            # Decisions come without a gap: they are held up for one, a few milliseconds long.
            connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
            _begin_anew(connection)


def _begin_anew(connection: sqlite3.Connection) -> None:
    # The first commit after all was copied begins the log anew, which waits for the disk.
    connection.execute("UPDATE checkpoint SET at=?", (time.time_ns(),))
