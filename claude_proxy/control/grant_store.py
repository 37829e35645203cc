"""Grant store: the grants of one state directory, shared by all its proxies and their workers.

Fail closed: a use is taken by one conditional update that is on the disk before the request leaves,
so that no crash, worker or other proxy spends one twice; a store that cannot be read or written
grants nothing. What has ended stays ended, and no number is given twice.
"""

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from claude_proxy.audit.database import connect, shm_of, wal_of
from claude_proxy.control import stored_rules
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.policy.grants import (
    End,
    Grant,
    GrantedRun,
    GrantKind,
    Moment,
    place_of,
)
from claude_proxy.policy.rules import Rule

FILE_NAME = "grants.sqlite3"

_APPLICATION_ID = 0x43504752  # "CPGR"
_VERSION = 1
_BUSY_S = 2.0
_KEPT = 500  # of those that have ended
MOST = 1000  # grants that may be in force
_HIGHEST = 2**63 - 1  # number that SQLite can give
_SEEN_EVERY_NS = 60 * 1_000_000_000

_SCHEMA = """
CREATE TABLE grant_ (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL, rules TEXT NOT NULL, made_ns INTEGER NOT NULL, made_by TEXT NOT NULL,
    reason TEXT NOT NULL, run TEXT, folder TEXT, project TEXT, lasts_ns INTEGER,
    wall_ns INTEGER NOT NULL, boot_ns INTEGER NOT NULL, boot TEXT NOT NULL,
    uses INTEGER, uses_left INTEGER CHECK (uses_left >= 0),
    ended TEXT, ended_ns INTEGER, ended_by TEXT,
    made_told INTEGER NOT NULL DEFAULT 0, end_told INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE clock (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), highest_ns INTEGER NOT NULL);
INSERT INTO clock VALUES (1, 0)
"""
_COLUMNS = (
    "number, kind, rules, made_ns, made_by, reason, run, folder, project, lasts_ns, wall_ns,"
    " boot_ns, boot, uses, uses_left, ended"
)


@dataclass(frozen=True, slots=True)
class News:
    """A grant that was made or has ended, of which nothing is in the record yet."""

    grant: Grant
    is_end: bool
    ended_by: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """A grant that is to be made."""

    rules: tuple[Rule, ...]
    by: str
    reason: str = ""
    kind: GrantKind = GrantKind.ALLOW
    run: GrantedRun | None = None
    project: str | None = None
    lasts_ns: int | None = None
    uses: int | None = None

    def grant(self, number: int, now: Moment) -> Grant:
        """Return the grant that it becomes; ValueError if it would have no bound."""
        return Grant(
            number,
            self.rules,
            now.wall_ns,
            now,
            self.by,
            self.reason,
            self.kind,
            self.run,
            self.project,
            self.lasts_ns,
            self.uses,
            self.uses,
        )


class GrantStore:
    """An open store."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._file = _file_of(path)
        self._seen_ns = 0

    @classmethod
    def open(cls, statedir: Path, *, make: bool = False) -> Self | None:
        """Open the store of a state directory; None if there is none, and none is to be made.

        Raises ConfigError if it cannot be used, or if others could have changed it.
        """
        path = statedir / FILE_NAME
        with _explained(path):
            if make:
                for directory in (*reversed(statedir.parents), statedir):
                    # One by one: `parents=True` would give the parents the mode of the umask.
                    directory.mkdir(mode=0o700, exist_ok=True)
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                if not path.exists():
                    os.close(os.open(path, flags, 0o600))
            if not os.path.lexists(path):
                return None
            _refuse_others(statedir.stat(), statedir)
            for each in (path, wal_of(path), shm_of(path)):
                _refuse_unsafe(each)
            connection = connect(path, timeout_s=_BUSY_S)
            try:
                _adopt(connection, path)
            except BaseException:
                connection.close()
                raise
            return cls(path, connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    # --- what is in force

    def version(self) -> int:
        """Return a number that changes whenever another connection has written; ConfigError."""
        with _explained(self.path):
            if _file_of(self.path) != self._file:
                raise sqlite3.DatabaseError("the file was replaced")
            found: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
            return found

    def standing(self, now: Moment) -> list[Grant]:
        """Return the grants that have not ended, those of an earlier boot with their rest of time.

        Raises ConfigError. One that cannot be read is left out: it grants nothing.
        """
        with _explained(self.path):
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM grant_ WHERE ended IS NULL ORDER BY number"  # noqa: S608 - constants
            ).fetchall()
            found = [grant for row in rows if (grant := _grant_of(row)) is not None]
            self._note_time(now)
            if any(grant.since.boot != now.boot and grant.lasts_ns for grant in found):
                found = list(self._after_boot(found, now))
        return found

    def get(self, number: int) -> Grant | None:
        """Return a grant, also one that has ended; None if there is none that can be read."""
        if number > _HIGHEST:
            return None
        with _explained(self.path):
            row = self._connection.execute(
                f"SELECT {_COLUMNS} FROM grant_ WHERE number = ?",  # noqa: S608 - constants
                (number,),
            ).fetchone()
        return None if row is None else _grant_of(row)

    def used_up(self) -> list[int]:
        """Return the numbers of the grants that are used up. Raises ConfigError."""
        with _explained(self.path):
            rows = self._connection.execute(
                "SELECT number FROM grant_ WHERE ended = ? ORDER BY number", (End.USES.value,)
            ).fetchall()
        return [number for (number,) in rows]

    def take_news(self) -> list[News]:
        """Return what is to be recorded, by the caller and by nobody else. Raises ConfigError."""
        with _explained(self.path):
            (some,) = self._connection.execute(
                "SELECT EXISTS (SELECT 1 FROM grant_ WHERE made_told = 0"
                " OR (ended IS NOT NULL AND end_told = 0))"
            ).fetchone()
            if not some:
                return []
            with self._transaction():
                made = self._connection.execute(
                    f"UPDATE grant_ SET made_told = 1 WHERE made_told = 0 RETURNING {_COLUMNS}"  # noqa: S608 - constants
                ).fetchall()
                ended = self._connection.execute(
                    "UPDATE grant_ SET end_told = 1 WHERE ended IS NOT NULL AND end_told = 0"  # noqa: S608
                    f" RETURNING {_COLUMNS}, ended_by"
                ).fetchall()
        found = [(row, False, "") for row in made]
        found += [(row[:-1], True, row[-1] or "") for row in ended]
        return [
            News(grant, is_end, by)
            for row, is_end, by in found
            if (grant := _grant_of(row)) is not None
        ]

    # --- changes

    def make(self, draft: Draft, now: Moment) -> Grant:
        """Store a new grant; ConfigError if that fails, ValueError if it has no bound."""
        draft.grant(0, now)
        with _explained(self.path), self._transaction():
            (count,) = self._connection.execute(
                "SELECT count(*) FROM grant_ WHERE ended IS NULL"
            ).fetchone()
            if count >= MOST:
                raise ConfigError(
                    f"there are {count} grants already",
                    where=str(self.path),
                    fix="revoke those that nobody needs: `claude-proxy revoke --all`",
                )
            run = draft.run
            number = self._connection.execute(
                "INSERT INTO grant_ (kind, rules, made_ns, made_by, reason, run, folder, project,"
                " lasts_ns, wall_ns, boot_ns, boot, uses, uses_left)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number",
                (
                    *(draft.kind.value, stored_rules.encode(draft.rules), now.wall_ns, draft.by),
                    draft.reason,
                    *((None, None) if run is None else (run.name, run.folder)),
                    *(draft.project, draft.lasts_ns, now.wall_ns, now.boot_ns, now.boot),
                    *(draft.uses, draft.uses),
                ),
            ).fetchone()[0]
            self._connection.execute(
                "DELETE FROM grant_ WHERE ended IS NOT NULL AND number NOT IN (SELECT number FROM"
                " grant_ WHERE ended IS NOT NULL ORDER BY number DESC LIMIT ?)",
                (_KEPT,),
            )
        return draft.grant(number, now)

    def take_use(self, number: int, now: Moment) -> int | None:
        """Take one use of a grant; return how many are left, or None if there was none.

        It is on the disk when this returns. Raises ConfigError if it cannot be written.
        """
        with _explained(self.path):
            row = self._connection.execute(
                "UPDATE grant_ SET uses_left = uses_left - 1,"
                " ended = CASE WHEN uses_left = 1 THEN ? END,"
                " ended_ns = CASE WHEN uses_left = 1 THEN ? END"
                " WHERE number = ? AND ended IS NULL AND uses_left > 0 RETURNING uses_left",
                (End.USES.value, now.wall_ns, number),
            ).fetchone()
        return None if row is None else int(row[0])

    def end(self, number: int, why: End, now: Moment, by: str = "") -> bool:
        """End a grant; tell whether this call has done so. ConfigError if it cannot be written.

        One that is used up can still be revoked: what is in progress by it ends as well, and that
        is recorded once more.
        """
        replaced = (End.USES.value,) if why in {End.REVOKED, End.CLOSED} else ()
        with _explained(self.path):
            return bool(
                self._connection.execute(
                    "UPDATE grant_ SET ended = ?, ended_ns = ?, ended_by = ?, end_told = 0"
                    " WHERE number = ? AND (ended IS NULL OR ended IN (?))",
                    (why.value, now.wall_ns, by, number, *(replaced or ("",))),
                ).rowcount
            )

    # --- time

    def _note_time(self, now: Moment) -> None:
        """Keep the highest time seen, by which a clock that is set back over a boot is noticed."""
        if now.wall_ns - self._seen_ns < _SEEN_EVERY_NS:
            return
        self._seen_ns = now.wall_ns
        # Only for a grant that a later boot could find.
        self._connection.execute(
            "UPDATE clock SET highest_ns = ? WHERE highest_ns < ? AND EXISTS"
            " (SELECT 1 FROM grant_ WHERE ended IS NULL AND lasts_ns IS NOT NULL AND boot = ?)",
            (now.wall_ns, now.wall_ns, now.boot),
        )

    def _after_boot(self, grants: Sequence[Grant], now: Moment) -> Iterator[Grant]:
        with self._transaction():
            (highest_ns,) = self._connection.execute("SELECT highest_ns FROM clock").fetchone()
            for grant in grants:
                again = grant.after_boot(now, highest_ns)
                if again is not grant and again.ended is None:
                    since = again.since
                    self._connection.execute(
                        "UPDATE grant_ SET lasts_ns = ?, wall_ns = ?, boot_ns = ?, boot = ?"
                        " WHERE number = ? AND boot = ?",
                        (
                            *(again.lasts_ns, since.wall_ns, since.boot_ns, since.boot),
                            *(grant.number, grant.since.boot),
                        ),
                    )
                yield again

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _grant_of(row: Sequence[Any]) -> Grant | None:
    """Return the grant of a row; None if anything about it is odd."""
    number, kind, rules, made_ns, made_by, reason, run, folder, project, lasts_ns = row[:10]
    wall_ns, boot_ns, boot, uses, uses_left, ended = row[10:]
    try:
        return Grant(
            number,
            stored_rules.decode(rules, place_of(number)),
            made_ns,
            Moment(wall_ns, boot_ns, boot),
            made_by,
            reason,
            GrantKind(kind),
            None if run is None else GrantedRun(run, folder or ""),
            project,
            lasts_ns,
            uses,
            uses_left,
            None if ended is None else End(ended),
        )
    except (ValueError, TypeError, KeyError):
        return None


def _file_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _adopt(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to its schema; ConfigError if it is another program's, or a newer one's."""
    # Whoever spends a use waits until it is on the disk: the machine may lose its power.
    connection.execute("PRAGMA synchronous=FULL")
    if _identity(connection) == (_APPLICATION_ID, _VERSION):
        return
    with contextlib.suppress(sqlite3.OperationalError):  # another process is doing the same
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if not tables:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    if _identity(connection) != (_APPLICATION_ID, _VERSION):
        raise ConfigError(
            "the file is not a store of grants that this version of claude-proxy knows",
            where=str(path),
            fix="upgrade claude-proxy, or move the file away: then nothing is granted",
        )


def _identity(connection: sqlite3.Connection) -> tuple[int, int]:
    names = ("application_id", "user_version")
    first, second = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return first, second


def _refuse_unsafe(path: Path) -> None:
    """Raise ConfigError if another user could have written what is there."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(
            "the store of grants is not a regular file", where=str(path), fix="move it away"
        )
    _refuse_others(found, path)


def _refuse_others(found: os.stat_result, path: Path) -> None:
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_uid != os.geteuid():
        raise ConfigError(
            "others than this user could have written to the store of grants",
            where=str(path),
            fix=f"find out who did, then run `chmod go-w {path}`, or move it away",
        )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            f"the store of grants cannot be used, so nothing is granted: {text.lower()}",
            where=str(path),
            fix="check its owner, its mode and the free space, or move it away",
        ) from error
