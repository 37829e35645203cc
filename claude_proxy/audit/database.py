"""The audit file: opened with the right owner, mode, schema and WAL mode, or refused.

Law: the sandbox cannot move its own wall. A log that others could change proves nothing, so it is
refused before the proxy starts. Only `store` writes rows.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from claude_proxy.audit.schema import APPLICATION_ID, MIGRATIONS
from claude_proxy.errors import ConfigError

FILE_NAME: Final = "audit.sqlite3"

# A commit writes whole pages, checksummed, into the write-ahead log, and a decision is some
# 200 bytes: pages of 1 KiB take a quarter off the time of one and two thirds off the log.
_PAGE_BYTES: Final = 1024

# Another proxy on the same file holds the lock for microseconds, the checkpoint thread for one
# small fsync now and then. Waiting for that is better than denying the request.
BUSY_S: Final = 1.0
START_PATIENCE_S: Final = 10.0

_WORTH_SHRINKING_BYTES: Final = 16 * 1024 * 1024

_ELSEWHERE: Final = "name another directory with --statedir or CLAUDE_PROXY_STATEDIR"


def database_in(statedir: Path) -> Path:
    """Return the path of the audit log of `statedir`."""
    return statedir / FILE_NAME


def open_for_writing(
    path: Path, *, patience_s: float = START_PATIENCE_S, migrations: Sequence[str] = MIGRATIONS
) -> sqlite3.Connection:
    """Return a connection to the audit file at `path`, created and migrated as needed.

    Raises ConfigError if the file, its directory or its content cannot be trusted or used.
    """
    try:
        _prepare_directory(path.parent)
        for name in (path, wal_of(path), shm_of(path)):
            _check_file(name)
        _make_file(path)
    except OSError as error:
        raise ConfigError(
            f"the audit log cannot be created: {error.strerror}",
            where=str(error.filename or path),
            fix=f"correct this path, or {_ELSEWHERE}",
        ) from error
    try:
        connection = connect(path, timeout_s=patience_s)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    try:
        _adopt(connection, path, patience_s, migrations)
        be_patient(connection, BUSY_S)
    except sqlite3.Error as error:
        connection.close()
        raise _unusable(path, error) from error
    except ConfigError:
        connection.close()
        raise
    return connection


def shrink(connection: sqlite3.Connection, path: Path) -> None:
    """Return space to the file system if most of the file is unused; for a quiet moment.

    Retention frees pages inside the file, where new rows take them; only after its bounds were
    lowered a lot is there more than they need.
    """
    free, pages = _pragma(connection, "freelist_count"), _pragma(connection, "page_count")
    if free * 2 < pages or free * _PAGE_BYTES < _WORTH_SHRINKING_BYTES:
        return
    be_patient(connection, 0)
    try:
        # Rewriting the file would hold up every other writer, so it is done only when there is
        # none, which leaving WAL mode requires. Otherwise the next start will do it.
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("VACUUM")
    finally:
        be_patient(connection, BUSY_S)
        _set_wal(connection, path, START_PATIENCE_S)
        connection.execute("UPDATE checkpoint SET at=at")  # the first commit waits for the disk


def connect(path: Path, *, timeout_s: float = BUSY_S, mode: str = "rw") -> sqlite3.Connection:
    """Return a connection in autocommit mode, made with URI `mode` ("ro", "rw")."""
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=timeout_s,
        check_same_thread=False,
    )


def be_patient(connection: sqlite3.Connection, seconds: float) -> None:
    """Set how long a statement waits for another connection's lock."""
    connection.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")


def wal_of(path: Path) -> Path:
    """Return the write-ahead log of the database at `path`."""
    return path.with_name(f"{path.name}-wal")


def shm_of(path: Path) -> Path:
    """Return the shared index of the write-ahead log of the database at `path`."""
    return path.with_name(f"{path.name}-shm")


def _prepare_directory(directory: Path) -> None:
    _make_directories(directory)
    status = directory.stat()
    _check_owner(status, directory, "the state directory")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            "others than its owner can write to the state directory",
            where=str(directory),
            fix=f"run `chmod go-w {directory}`, or {_ELSEWHERE}",
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(
            "the state directory is not writable",
            where=str(directory),
            fix=f"run `chmod u+rwx {directory}`, or {_ELSEWHERE}",
        )


def _make_directories(directory: Path) -> None:
    # Not `parents=True`, which would give the parents the mode that the umask leaves.
    if not directory.exists():
        _make_directories(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def _check_owner(status: os.stat_result, path: Path, name: str) -> None:
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"{name} belongs to another user (uid {status.st_uid})",
            where=str(path),
            fix=f"run the proxy as that user, or {_ELSEWHERE}",
        )


def _check_file(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(
            "the audit log is not a regular file",
            where=str(path),
            fix=f"remove it, or {_ELSEWHERE}",
        )
    _check_owner(status, path, "the audit log")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            "others than its owner can write to the audit log",
            where=str(path),
            fix=f"find out who wrote to it, then run `chmod 600 {path}`",
        )


def _make_file(path: Path) -> None:
    """Create the file, readable by its owner only; SQLite gives its other files the same mode."""
    if not path.exists():
        # Before any connection exists: closing a descriptor of a database that SQLite has open
        # would drop SQLite's locks on it, as POSIX locks belong to the process.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)


def _adopt(
    connection: sqlite3.Connection, path: Path, patience_s: float, migrations: Sequence[str]
) -> None:
    """Bring the file to WAL mode and the newest schema."""
    connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")  # only a file without tables takes it
    _check_identity(connection, path, len(migrations))
    _set_wal(connection, path, patience_s)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Again, under the lock: another proxy may have started in between.
        version = _check_identity(connection, path, len(migrations))
        for script in migrations[version:]:
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={len(migrations)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _check_identity(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    """Return the schema version of the file; ConfigError if it is not a usable audit log."""
    version = _pragma(connection, "user_version")
    if version > newest:
        raise ConfigError(
            f"the audit log was written by a newer claude-proxy (schema {version}, not {newest})",
            where=str(path),
            fix=f"upgrade claude-proxy, move the file away, or {_ELSEWHERE}",
        )
    empty = _pragma(connection, "schema_version") == 0
    if not empty and _pragma(connection, "application_id") != APPLICATION_ID:
        raise ConfigError(
            "the file is a database of another program, not an audit log",
            where=str(path),
            fix=f"move the file away, or {_ELSEWHERE}",
        )
    return version


def _set_wal(connection: sqlite3.Connection, path: Path, patience_s: float) -> None:
    give_up = time.monotonic() + patience_s
    mode = None
    while mode is None:
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            # When two processes change the mode of a new file at once, SQLite reports "locked" to
            # one of them without waiting, as waiting would be a deadlock.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise ConfigError(
            f"the file system of the audit log does not support a write-ahead log, only {mode}",
            where=str(path),
            fix=f"put it on a local disk: {_ELSEWHERE}",
        )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _unusable(path: Path, error: sqlite3.Error) -> ConfigError:
    return ConfigError(
        f"the audit log cannot be used: {error}",
        where=str(path),
        fix=f"free disk space or repair the disk; move a damaged file away; or {_ELSEWHERE}",
    )
