"""The audit store: the only writer of the audit log.

Law: recorded or denied. When `AuditStore.record` returns from a decision, its row is in the file's
write-ahead log and survives the process, however that ends; otherwise it raises AuditError.
Outcomes are collected and written together. A failure of an outcome, of retention, of a checkpoint
or of a sink never affects a decision.
"""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from claude_proxy.audit.checkpoint import ENOUGH_BYTES, Checkpointer
from claude_proxy.audit.clock import ClockWatch, since_boot_ns
from claude_proxy.audit.database import BUSY_S, be_patient, open_for_writing, shrink, wal_of
from claude_proxy.audit.escape import storable
from claude_proxy.audit.repeats import Repeated, RepeatedDenials
from claude_proxy.audit.retention import Retention, newest_times
from claude_proxy.audit.sinks import Printer, Sink
from claude_proxy.audit.usage import (
    INSERT_USAGE,
    RELEASE,
    REQUESTS_SINCE,
    RESERVED,
    RESERVED_SINCE,
    TOKENS_BESIDE,
    TOKENS_SINCE,
    bounded,
)
from claude_proxy.config.settings import AuditFailure
from claude_proxy.errors import AuditError, ConfigError
from claude_proxy.events import DecisionMade, Event, Notice, OutcomeSeen, Usage

_METHOD_BOUND: Final = 64
_TARGET_BOUND: Final = 512
_PATH_BOUND: Final = 1024
_TEXT_BOUND: Final = 4096

_OUTCOMES_AT_ONCE: Final = 64
_OUTCOMES_KEPT: Final = 10_000
_COUNTS_AT_ONCE: Final = 256

# Deleting the file also deletes all earlier records; another quarter of a second of decisions is
# the same loss, while a check at each decision would cost a third of its time.
_CHECK_EVERY_S: Final = 0.25

_REOPEN_PATIENCE_S: Final = 0.05
_RESCUE_S: Final = 0.1
# Another writer on the same file holds the lock for about ten microseconds.
_FIRST_PAUSE_S: Final = 0.00001
_LONGEST_PAUSE_S: Final = 0.001

_MIB: Final = 1024 * 1024
_HELD_BYTES: Final = 256 * _MIB  # the write-ahead log only grows so far while it cannot restart

# The values of a statement: in the order of its `?`, or by name.
type Bound = tuple[object, ...] | dict[str, int | str]

_TRIM_EVERY: Final = 128  # decisions
_CLOSE_S: Final = 5.0

# Other proxies and workers write into the same file, and a clock may be set back: the order of the
# ids is the order of recording. The time has its own column where it is not the id.
# Not by a SELECT as the source of rows, which costs a third more.
_INSERT_LATEST: Final = (
    "INSERT INTO decision VALUES(max(?, coalesce((SELECT max(id) + 1 FROM decision), 0)),"
    "?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,NULL,NULL)"
)
_SET_TIME: Final = "UPDATE decision SET at = ? WHERE id = ?"
# The same where it is known that the id cannot be the time. To ask twice for the last id takes a
# fifth of the time of a decision.
_INSERT_LATER: Final = (
    "INSERT INTO decision VALUES(max(?, coalesce((SELECT max(id) + 1 FROM decision), 0)),"
    "?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,"
    "CASE WHEN ? > coalesce((SELECT max(id) FROM decision), -1) THEN ?"
    " ELSE coalesce(?, ?) END,NULL,NULL)"
)
# The gate ends an attempt once; if it did so twice, the last outcome would count.
_INSERT_OUTCOME: Final = "INSERT OR REPLACE INTO outcome VALUES(?,?,?,?,?,?,?,?)"
_INSERT_NOTICE: Final = (
    "INSERT INTO notice SELECT n,?,?,?,CASE n WHEN ? THEN ? ELSE coalesce(?, ?) END FROM"
    " (SELECT max(?, coalesce((SELECT max(id) + 1 FROM notice), 0),"
    " coalesce((SELECT max(id) + 1 FROM decision), 0)) AS n)"
)
_RAISE_COUNT: Final = "UPDATE decision SET count = ?, last = ? WHERE id = ?"

# A later try on the same connection may succeed; after any other error the file is reopened.
_PASSING: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
# The error is in the row, not in the file.
_FAULTS_OF_A_ROW: Final = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
)


class AuditStore:
    """The only writer of an audit log; used from one thread only, the event loop's."""

    def __init__(
        self,
        path: Path,
        *,
        retention_days: int = 30,
        max_bytes: int = 256 * 1024 * 1024,
        sinks: Sequence[Sink] = (),
        audit_failure: AuditFailure = AuditFailure.DENY,
    ) -> None:
        self._path = path
        self._unrecorded_are_denied = audit_failure is AuditFailure.DENY
        self._outcomes: deque[OutcomeSeen] = deque()
        self._outcomes_lost = 0
        self._reserved: set[int] = set()  # decisions that have tokens reserved
        self._released: list[int] = []  # those that used none
        self._repeats = RepeatedDenials()
        self._has_reported_held = False
        self._untrimmed = 0
        self._newest = -1  # the last id that was written here
        self._failure: AuditError | None = None
        self._broken = False
        self._unrecorded = 0
        self._unrecorded_because: AuditError | None = None
        connection = open_for_writing(path)
        shrink(connection, path)
        self._adopt(connection)
        self._retention = Retention(
            path,
            self._execute,
            days=retention_days,
            max_bytes=max_bytes,
            clock=ClockWatch(newest_times(self._execute)),
        )
        self._checkpointer = Checkpointer(path)
        self._printer = Printer(sinks) if sinks else None

    @property
    def failure(self) -> AuditError | None:
        """The error that keeps decisions from being recorded now, if there is one."""
        return self._failure

    @property
    def unrecorded(self) -> tuple[int, AuditError] | None:
        """How many decisions could not be recorded, and why the last could not; None: all were."""
        why = self._unrecorded_because
        return None if why is None else (self._unrecorded, why)

    def record(self, event: Event) -> int:
        """Write `event` and return the id of its row, by which outcomes name their decision.

        Raises AuditError if a decision or a notice cannot be written now.
        """
        if isinstance(event, DecisionMade):
            return self._record_decision(_bounded(event))
        if isinstance(event, OutcomeSeen):
            self._gather(event)
            return event.decision
        return self._record_notice(event)

    def flush(self) -> None:
        """Do what can wait: outcomes, retention, a check of the file. Takes about a millisecond.

        Call it a few times a second. It raises nothing: see `failure`.
        """
        try:
            self._check()
            self._write_outcomes()
            self._write_counts(_COUNTS_AT_ONCE)
            self._trim()
            self._report_lost_lines()
            self._report_recovery()
        except (sqlite3.Error, OSError, AuditError) as error:
            self._fail(error)

    def close(self) -> None:
        """Write what is gathered, checkpoint, and end the threads; later records are refused."""
        self.flush()
        self._write_what_is_left()
        self._checkpointer.close()
        self._retention.close(_CLOSE_S)
        with suppress(sqlite3.Error):
            # Do not wait for a reader: the next start will do it.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
        self._broken, self._checked_at = True, float("inf")
        self._failure = AuditError("the audit log is closed", where=str(self._path))
        if self._printer is not None:
            self._printer.close()

    def rescue(self) -> None:
        """Write the gathered outcomes from another thread, when the own one no longer gets to it.

        Best effort, for a process that is about to end: what the disk refuses is lost.
        """
        with suppress(sqlite3.Error, OSError, ConfigError, IndexError, RuntimeError):
            batch = list(self._outcomes)
            with closing(open_for_writing(self._path, patience_s=_RESCUE_S)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(_INSERT_OUTCOME, [_outcome_row(each) for each in batch])
                used = [(each.decision, each.usage) for each in batch if each.usage is not None]
                connection.executemany(INSERT_USAGE, [_usage_row(*each) for each in used])
                connection.execute("COMMIT")
        if self._printer is not None:
            # A reader that does not read would keep this thread, too.
            closing_printer = threading.Thread(target=self._printer.close, daemon=True)
            closing_printer.start()
            closing_printer.join(_RESCUE_S)

    # The counts for a gateway's ceilings; AuditError where they cannot be determined.

    def used_since(self, moment_ns: int, credential: str) -> int:
        """Return the tokens of requests that began at `moment_ns` or later with `credential`.

        Responses of other processes on this log count a moment after their end.
        """
        return self._counted(TOKENS_SINCE, moment_ns, credential)

    def reserved_since(self, moment_ns: int, credential: str) -> int:
        """Return how many of these tokens are only reserved."""
        return self._counted(RESERVED_SINCE, moment_ns, credential)

    def reserve(self, decision: int, usage: Usage, moment_ns: int, most: int) -> bool:
        """Reserve tokens for an allowed request, until its outcome is recorded.

        Return False if `most` tokens are used up or reserved with its credential since `moment_ns`,
        by any process.
        """
        try:
            self._check_now_and_then()
            self._write_outcomes()
            self._execute("BEGIN IMMEDIATE")
            has_room = self._number(TOKENS_BESIDE, since=moment_ns, decision=decision) < most
            if has_room:
                row = _usage_row(decision, replace(bounded(usage), model=RESERVED))
                self._execute(INSERT_USAGE, row)
            self._execute("COMMIT")
        except (sqlite3.Error, OSError, AuditError) as error:
            raise self._fail(error) from error
        if has_room:
            self._reserved.add(decision)
        return has_room

    def requests_since(self, moment_ns: int, credential: str) -> int:
        """Return how many requests with `credential` were allowed since `moment_ns`."""
        return self._counted(REQUESTS_SINCE, moment_ns, credential)

    def _counted(self, statement: str, moment_ns: int, credential: str) -> int:
        try:
            self._check_now_and_then()
            self._write_outcomes()
            return self._number(statement, since=moment_ns, credential=credential)
        except (sqlite3.Error, OSError, AuditError) as error:
            raise self._fail(error) from error

    # Decisions and notices: now or never.

    def _record_decision(self, event: DecisionMade) -> int:
        try:
            self._check_now_and_then()
            if not event.allowed and self._failure is None:
                repeated = self._repeats.counted(event, time.monotonic())
                if repeated is not None:
                    return self._count(event, repeated)
            number = self._insert_decision(event)
        except (sqlite3.Error, OSError, AuditError) as error:
            failure = self._fail(error)
            self._unrecorded, self._unrecorded_because = self._unrecorded + 1, failure
            self._print(self._as_obeyed(event))
            raise failure from error
        if number != event.id:
            event = event._replace(id=number, at=event.time_ns)
        if not event.allowed:
            self._repeats.recorded(event, time.monotonic())
        self._print(event)
        self._untrimmed += 1
        if self._untrimmed >= _TRIM_EVERY or self._failure is not None:
            self.flush()
        return number

    def _insert_decision(self, event: DecisionMade) -> int:
        try:
            return self._insert_in_order(event)
        except UnicodeEncodeError:
            return self._insert_in_order(_storable(event))

    def _insert_in_order(self, event: DecisionMade) -> int:
        row, at = _decision_row(event), event.at or None
        if event.id > self._newest:
            number = self._insert(_INSERT_LATEST, (*row, at))
            if number != event.id and at is None:  # another process has recorded a later one
                self._execute(_SET_TIME, (event.id, number))
        else:
            number = self._insert(_INSERT_LATER, (*row, event.id, at, at, event.id))
        self._newest = number
        return number

    def _count(self, event: DecisionMade, repeated: Repeated) -> int:
        if self._printer is not None:
            repeat = event._replace(id=repeated.id, at=event.time_ns, count=repeated.count)
            self._printer.put(repeat)
        return repeated.id

    def _record_notice(self, event: Notice) -> int:
        event = replace(event, id=event.id or time.time_ns())
        try:
            self._check_now_and_then()
            return self._insert_notice(event)
        except (sqlite3.Error, OSError, AuditError) as error:
            raise self._fail(error) from error
        finally:
            self._print(event)

    def _insert_notice(self, event: Notice) -> int:
        texts = (storable(event.kind, _TEXT_BOUND), storable(event.text, _TEXT_BOUND))
        number, at = event.id, event.at or None
        return self._insert(_INSERT_NOTICE, (*texts, event.run, number, at, at, number, number))

    def _insert(self, statement: str, values: tuple[object, ...]) -> int:
        """Insert a row and return its id: the one it asks for, or the next that is free."""
        number = self._execute(statement, values).lastrowid
        if number is None:
            raise AuditError("the audit log gave a row no id")
        return number

    def _as_obeyed(self, event: DecisionMade) -> DecisionMade:
        """Return what the gate makes of a decision that could not be recorded."""
        if not self._unrecorded_are_denied:
            return event
        return event._replace(allowed=False, reason="audit-failed", rule=None, rule_source=None)

    # Outcomes: gathered, because nothing waits for them.

    def _gather(self, event: OutcomeSeen) -> None:
        if event.usage is not None:
            event = event._replace(usage=bounded(event.usage))
        if self._reserved and event.decision in self._reserved:
            self._reserved.remove(event.decision)
            if event.usage is None:
                self._released.append(event.decision)
        self._print(event)
        if not self._repeats.adds_outcome(event.decision):
            return
        self._outcomes.append(event)
        if len(self._outcomes) > _OUTCOMES_KEPT:
            self._outcomes.popleft()
            self._outcomes_lost += 1
        if self._failure is None and len(self._outcomes) >= _OUTCOMES_AT_ONCE:
            self.flush()

    def _write_outcomes(self) -> None:
        while self._outcomes:
            count = min(len(self._outcomes), _OUTCOMES_AT_ONCE)
            batch = [self._outcomes[index] for index in range(count)]
            rows = [_outcome_row(event) for event in batch]
            used = [
                _usage_row(event.decision, event.usage)
                for event in batch
                if event.usage is not None
            ]
            self._execute("BEGIN IMMEDIATE")
            try:
                self._cursor.executemany(_INSERT_OUTCOME, rows)
                if used:
                    self._cursor.executemany(INSERT_USAGE, used)
                if self._released:
                    self._cursor.executemany(RELEASE, [(each,) for each in self._released])
                self._execute("COMMIT")
                self._released.clear()
            except (sqlite3.IntegrityError, OverflowError):
                # These can never be written; those after them can.
                self._execute("ROLLBACK")
                self._outcomes_lost += count
            for _ in range(count):
                self._outcomes.popleft()

    def _write_counts(self, most: int) -> bool:
        """Write counts of repeated denials; tell whether there were any."""
        rows = self._repeats.unwritten(most)
        if not rows:
            return False
        self._execute("BEGIN IMMEDIATE")
        self._cursor.executemany(_RAISE_COUNT, [(row.count, row.last, row.id) for row in rows])
        are_there = self._cursor.rowcount == len(rows)
        self._execute("COMMIT")
        self._repeats.written(rows)
        if not are_there:
            self._repeats.clear()  # retention removed a row: the next repeat gets one of its own
        return True

    def _write_what_is_left(self) -> None:
        try:
            while self._failure is None and self._write_counts(_COUNTS_AT_ONCE):
                pass
            if self._failure is None:
                self._report_removed(final=True)
        except (sqlite3.Error, OSError, AuditError) as error:
            self._fail(error)

    def _trim(self) -> None:
        self._untrimmed = 0
        self._retention.trim()
        self._report_removed(final=False)

    def _report_removed(self, *, final: bool) -> None:
        notice = self._retention.report(time.time_ns(), since_boot_ns(), final=final)
        if notice is not None:
            self._record_notice(notice)

    def _execute(self, statement: str, values: Bound = ()) -> sqlite3.Cursor:
        try:
            return self._cursor.execute(statement, values)
        except sqlite3.OperationalError as error:
            # While nothing works, a lock that is never released must not make the event loop wait
            # at every decision.
            if not _is_busy(error) or self._failure is not None:
                raise
        return self._execute_when_free(statement, values)

    def _execute_when_free(self, statement: str, values: Bound) -> sqlite3.Cursor:
        """Wait for another worker or proxy; SQLite itself would sleep a hundred times too long."""
        give_up = time.monotonic() + BUSY_S
        pause_s = _FIRST_PAUSE_S
        while True:
            time.sleep(pause_s)
            try:
                return self._cursor.execute(statement, values)
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > give_up:
                    raise
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _number(self, statement: str, **values: int | str) -> int:
        number: int = self._execute(statement, values).fetchone()[0]
        return number

    # The file, and what goes wrong with it.

    def _adopt(self, connection: sqlite3.Connection) -> None:
        be_patient(connection, 0)  # `_execute` waits, in finer steps
        self._connection = connection
        self._cursor = connection.cursor()
        self._identity, _ = self._seen()
        self._checked_at = time.monotonic()

    def _check_now_and_then(self) -> None:
        if time.monotonic() > self._checked_at + _CHECK_EVERY_S:
            self._check()
        elif self._broken and self._failure is not None:
            raise self._failure

    def _check(self) -> None:
        """Check that the open file is still the one at the path; reopen it if it was lost."""
        if self._checked_at == float("inf") and self._failure is not None:
            raise self._failure  # closed
        self._checked_at = time.monotonic()
        if self._broken:
            self._reopen()
        identity, wal_bytes = self._seen()
        if identity != self._identity:
            self._broken = True
            raise AuditError("the audit log was deleted or replaced while in use")
        if wal_bytes > ENOUGH_BYTES:
            self._checkpointer.wake()
        if wal_bytes > _HELD_BYTES and not self._has_reported_held:
            self._has_reported_held = True
            self._report_held(wal_bytes)
        elif wal_bytes < ENOUGH_BYTES:
            self._has_reported_held = False

    def _report_held(self, wal_bytes: int) -> None:
        text = (
            f"the write-ahead log of the audit log has grown to {wal_bytes // _MIB} MiB, because a"
            f" program keeps the log open for reading; `fuser {self._path}` finds it"
        )
        notice = Notice(time.time_ns(), "log-held", text)
        self._insert_notice(notice)
        self._print(notice)

    def _reopen(self) -> None:
        self._connection.close()
        try:
            self._adopt(open_for_writing(self._path, patience_s=_REOPEN_PATIENCE_S))
        except ConfigError as error:
            raise AuditError(error.what, where=error.where, fix=error.fix) from error
        self._repeats.clear()  # they may be in another file
        self._newest = -1
        self._broken = False

    def _seen(self) -> tuple[tuple[int, ...], int]:
        """Return the identity of the files at the path, and the size of the write-ahead log."""
        try:
            database, wal = self._path.stat(), wal_of(self._path).stat()
        except FileNotFoundError:
            return (), 0
        return (database.st_dev, database.st_ino, wal.st_dev, wal.st_ino), wal.st_size

    def _fail(self, error: Exception) -> AuditError:
        failure = _explained(error, self._path)
        if isinstance(error, _FAULTS_OF_A_ROW):
            return failure
        code = getattr(error, "sqlite_errorcode", None)
        if code is None or code & 0xFF not in _PASSING:
            self._broken = True
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._execute("ROLLBACK")
        self._failure = failure
        return failure

    def _report_lost_lines(self) -> None:
        if self._printer is not None:
            for text in self._printer.reports():
                self._insert_notice(Notice(time.time_ns(), "lines-lost", text))

    def _report_recovery(self) -> None:
        if self._failure is None and self._outcomes_lost == 0:
            return
        text = "decisions are recorded again" if self._failure else "the audit log is incomplete"
        if self._outcomes_lost:
            text += f"; the outcomes of {self._outcomes_lost} attempts are lost"
        notice = Notice(time.time_ns(), "audit-recovered", text)
        self._insert_notice(notice)
        self._print(notice)
        self._failure, self._outcomes_lost = None, 0

    def _print(self, event: Event) -> None:
        if self._printer is not None:
            self._printer.put(event)


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _decision_row(event: DecisionMade) -> tuple[object, ...]:
    """Return the columns up to `attempt`."""
    return (
        event.id,
        event.connection,
        event.client,
        event.listener,
        event.phase.value,
        event.scheme,
        event.target,
        event.method,
        event.path,
        event.allowed,
        event.reason,
        event.rule,
        event.rule_source,
        event.credential,
        event.run,
        event.attempt,
    )


def _outcome_row(event: OutcomeSeen) -> tuple[object, ...]:
    return (
        event.decision,
        event.status,
        event.bytes_up,
        event.bytes_down,
        event.duration_ms,
        event.first_byte_ms,
        event.upstream,
        event.error,
    )


def _usage_row(decision: int, usage: Usage) -> tuple[object, ...]:
    return (
        usage.model,
        usage.tokens_in,
        usage.tokens_out,
        usage.cache_written,
        usage.cache_read,
        decision,
    )


def _bounded(event: DecisionMade) -> DecisionMade:
    """Return `event`, shortened if a client sent more than is kept, or a NUL."""
    method, target, path = event.method, event.target, event.path
    if (
        len(path) > _PATH_BOUND
        or len(target) > _TARGET_BOUND
        or len(method) > _METHOD_BOUND
        or "\0" in path
        or "\0" in target
        or "\0" in method
    ):
        return _storable(event)
    return event


def _storable(event: DecisionMade) -> DecisionMade:
    """Return `event` with each text as SQLite can store it."""
    return event._replace(
        client=storable(event.client, _TEXT_BOUND),
        listener=storable(event.listener, _TEXT_BOUND),
        scheme=storable(event.scheme, _METHOD_BOUND),
        target=storable(event.target, _TARGET_BOUND),
        method=storable(event.method, _METHOD_BOUND),
        path=storable(event.path, _PATH_BOUND),
        reason=storable(event.reason, _TEXT_BOUND),
        rule=_storable_or_none(event.rule),
        rule_source=_storable_or_none(event.rule_source),
        credential=_storable_or_none(event.credential),
        run=_storable_or_none(event.run),
    )


def _storable_or_none(text: str | None) -> str | None:
    return None if text is None else storable(text, _TEXT_BOUND)


def _explained(error: Exception, path: Path) -> AuditError:
    if isinstance(error, AuditError):
        what, fix = error.what, error.fix
    else:
        what, fix = f"the audit log cannot be written: {error}", None
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        fix = "free some disk space; recording resumes automatically"
    return AuditError(
        what,
        where=str(path),
        fix=fix or "make the file writable; recording resumes automatically",
    )
