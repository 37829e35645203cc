"""Queries of the audit log: read-only, beside a running proxy or after a crash.

Law: reading delays no writer. Every result is read completely before it is returned, because a
reader that keeps a snapshot (a pager, for example) makes the write-ahead log grow.
"""

import sqlite3
from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from claude_proxy.audit.database import connect
from claude_proxy.audit.denials import DeniedRow
from claude_proxy.audit.schema import APPLICATION_ID, MIGRATIONS, VIEWS_OF_OLDER
from claude_proxy.audit.state import (
    IS_DENIED,
    IS_FAILED,
    IS_FAILED_STEP,
    IS_SHOWN,
    IS_SUPERSEDED,
    State,
    is_shown_failure,
    state_of,
)
from claude_proxy.audit.tally import RUN_NOTICES, Grouping, LoggedRun, Tally, added_up, runs_of
from claude_proxy.audit.usage import UsageGrouping, UsageSum, sums_by
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.events import DecisionMade, Notice, OutcomeSeen, Phase, Usage
from claude_proxy.policy.grants import GRANT_PLACE
from claude_proxy.policy.reason import Reason
from claude_proxy.wire.authority import normalise_host

_BUSY_S: Final = 5.0
_PAGE_ROWS: Final = 1000
_LARGE_PAGE_ROWS: Final = 20_000
_OUTCOME_AWAITED_NS: Final = 1_000_000_000
_FAILURE_AWAITED_NS: Final = 90_000_000_000  # longer than any time limit of a dial

_ATTEMPTS: Final = (
    " FROM decision d LEFT JOIN outcome o ON o.decision = coalesce(d.attempt, d.id)"
    " LEFT JOIN usage u ON u.decision = d.id"
)
# What a grant or an answer allowed, and not the list. What is in doubt is not of the list.
_IS_GRANTED: Final = (
    f"(d.reason = '{Reason.ANSWERED}' OR coalesce(d.rule_source, '') GLOB '{GRANT_PLACE}*')"
)
_COLUMNS: Final = (
    "SELECT d.*, o.*, u.model, u.tokens_in, u.tokens_out, u.cache_written, u.cache_read"
)


@dataclass(frozen=True, slots=True)
class LoggedAttempt:
    """A decision, and its outcome if the attempt has ended."""

    decision: DecisionMade
    outcome: OutcomeSeen | None

    @property
    def id(self) -> int:
        """The id of the decision; entries are in the order of their ids."""
        return self.decision.id

    @property
    def time_ns(self) -> int:
        """When the decision was made."""
        return self.decision.time_ns

    @property
    def state(self) -> State:
        """What became of the attempt, as far as it is known."""
        return state_of(self.decision, self.outcome)

    @property
    def is_failed_step(self) -> bool:
        """Whether it is a step that is shown only because it failed."""
        return self.outcome is not None and is_shown_failure(self.decision, self.outcome)


type LogEntry = LoggedAttempt | Notice


@dataclass(frozen=True, slots=True)
class HostFilter:
    """The hosts to select: one, or all below a domain, with or without the domain itself."""

    host: str
    itself: bool
    below: bool

    @classmethod
    def parse(cls, text: str) -> "HostFilter":
        """Read "example.com", "*.example.com" (below it) or ".example.com" (both)."""
        for prefix, itself in (("*.", False), (".", True)):
            if text.startswith(prefix):
                return cls(_spelled(text.removeprefix(prefix)), itself, below=True)
        return cls(_spelled(text), itself=True, below=False)

    def condition(self) -> tuple[str, list[str]]:
        """Return the filter in SQL, over targets written as `Authority` does."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        parts, values = [], []
        if self.itself:
            parts.append("substr(lower(d.target), 1, length(?)) = ? OR lower(d.target) = ?")
            values += [f"{host}:", f"{host}:", self.host]
        if self.below:
            # No host contains a colon, so this is the end of the name and the start of the port.
            parts.append("instr(lower(d.target), ?) > 1")
            values.append(f".{host}:")
        return f"({' OR '.join(parts)})", values


@dataclass(frozen=True, slots=True)
class ListenerFilter:
    """One listener, as the log, the banner or --listen writes it."""

    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "ListenerFilter":
        """Read "tcp 127.0.0.1:9051", "127.0.0.1:9051", "unix:/path" or a name that was given."""
        bare = text.removeprefix("http://").removeprefix("unix:")
        return cls((text, f"tcp {bare}", f"unix {bare}"))

    def condition(self) -> tuple[str, list[str]]:
        """Return the filter in SQL."""
        return "d.listener IN (?, ?, ?)", list(self.names)


@dataclass(frozen=True, slots=True)
class RunFilter:
    """One `claude-proxy run`, by its name."""

    name: str

    def condition(self, table: str = "d") -> tuple[str, list[str]]:
        """Return the filter in SQL, over the columns of `table`."""
        return f"{table}.run = ?", [self.name]


class Show(StrEnum):
    """Which attempts to select by what became of them."""

    EVERYTHING = "everything"
    DENIED = "denied"
    FAILED = "failed"
    ALLOWED = "allowed"  # and failed: it was not denied


_STATES: Final = {
    Show.EVERYTHING: "1",
    Show.DENIED: IS_DENIED,
    Show.FAILED: IS_FAILED,
    Show.ALLOWED: f"NOT {IS_DENIED}",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries to select."""

    show: Show = Show.EVERYTHING
    host: HostFilter | None = None
    listener: ListenerFilter | None = None
    run: RunFilter | None = None
    since_ns: int = 0
    steps: bool = False  # also allowed decisions on the way to a request
    notices: bool | None = None  # None: where nothing else is selected; True: nothing but notices
    kind: str | None = None  # of notices; None: all
    kind_left_out: str | None = None  # of notices

    @property
    def filters(self) -> "list[HostFilter | ListenerFilter | RunFilter]":
        """The filters that select attempts."""
        return [one for one in (self.host, self.listener, self.run) if one is not None]

    @property
    def has_attempts(self) -> bool:
        """Whether attempts are selected."""
        return self.notices is not True

    @property
    def has_notices(self) -> bool:
        """Whether the proxy's own notices are selected."""
        if self.notices is not None:
            return self.notices
        return self.show is Show.EVERYTHING and not self.filters

    def condition_on_attempts(self) -> tuple[str, list[object]]:
        """Return the selection in SQL, over the decision `d` and its outcome `o`."""
        # No id is below its time, so the first condition only makes the search shorter.
        conditions = ["d.id >= ?", "coalesce(d.at, d.id) >= ?", _STATES[self.show]]
        values: list[object] = [self.since_ns, self.since_ns]
        if not self.steps:
            conditions.append(IS_SHOWN)
        for each in self.filters:
            condition, more = each.condition()
            conditions.append(condition)
            values += more
        return " AND ".join(conditions), values

    def condition_on_notices(self) -> tuple[str, list[object]]:
        """Return the selection in SQL, over the notice `n`."""
        conditions, values = ["coalesce(n.at, n.id) >= ?"], list[object]([self.since_ns])
        if self.run is not None:
            more, names = self.run.condition("n")
            conditions.append(more)
            values += names
        for comparison, kind in (("=", self.kind), ("<>", self.kind_left_out)):
            if kind is not None:
                conditions.append(f"n.kind {comparison} ?")
                values.append(kind)
        return " AND ".join(conditions), values

    def left_out(self) -> "Selection | None":
        """Return the notices that are left out for their kind, as a selection; None: none are."""
        if self.kind_left_out is None:
            return None
        return Selection(
            run=self.run, since_ns=self.since_ns, notices=True, kind=self.kind_left_out
        )


_GROUPS: Final = {Grouping.HOST: "d.target", Grouping.RUN: "d.run", Grouping.REASON: "1"}


class NoAuditLogError(ClaudeProxyError):
    """No proxy has written an audit log here yet."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            "there is no audit log yet",
            where=str(path),
            fix="start claude-proxy first, or name its state directory with --statedir",
        )


class AuditReader:
    """Read-only access to one audit log."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise NoAuditLogError(path)
        self._path = path
        try:
            self._connection = connect(path, timeout_s=_BUSY_S, mode="ro")
        except sqlite3.Error as error:
            raise self._unreadable(error) from error
        try:
            self._check()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def newest(self, selection: Selection, limit: int) -> list[LogEntry]:
        """Return the newest `limit` entries, newest last."""
        entries: list[LogEntry] = []
        if selection.has_attempts:
            entries += self._attempts(selection, "1", (), "DESC", limit)
        if selection.has_notices:
            entries += self._notices(selection, "1", (), "DESC", limit)
        entries.sort(key=lambda entry: entry.id)
        return entries[-limit:]

    def count(self, selection: Selection) -> int:
        """Return how many entries are selected."""
        total = 0
        if selection.has_attempts:
            condition, values = selection.condition_on_attempts()
            total += self._rows(f"SELECT count(*){_ATTEMPTS} WHERE {condition}", *values)[0][0]
        if selection.has_notices:
            condition, values = selection.condition_on_notices()
            total += self._rows(f"SELECT count(*) FROM notice n WHERE {condition}", *values)[0][0]  # noqa: S608
        return total

    def tallies(self, selection: Selection, per: Grouping) -> list[Tally]:
        """Return how many attempts were denied, failed and allowed, the most denied first."""
        condition, values = selection.condition_on_attempts()
        statement = (
            f"SELECT {_GROUPS[per]} AS name, coalesce(o.error, d.reason) AS reason, {IS_DENIED},"
            f" {IS_FAILED}, sum(coalesce(d.count, 1)), max(coalesce(d.last, d.at, d.id))"
            f"{_ATTEMPTS} WHERE {condition} GROUP BY 1, 2, 3, 4"
        )
        return added_up(self._rows(statement, *values), per)

    def first_time(self) -> int | None:
        """Return when the first decision was made that is still there; None if there is none."""
        rows = self._rows("SELECT coalesce(at, id) FROM decision ORDER BY id LIMIT 1")
        return rows[0][0] if rows else None

    def last_run(self) -> str | None:
        """Return the name of the run that began last; None: there is none."""
        statement = "SELECT run FROM notice WHERE kind = 'run-start' AND run IS NOT NULL"
        rows = self._rows(f"{statement} ORDER BY id DESC LIMIT 1")
        return rows[0][0] if rows else None

    def has_run(self, name: str) -> bool:
        """Tell whether a run of this name has begun."""
        statement = "SELECT 1 FROM notice WHERE kind = 'run-start' AND run = ? LIMIT 1"
        return bool(self._rows(statement, name))

    def has_rows_of(self, run: str) -> bool:
        """Tell whether anything is recorded of a run."""
        statement = "SELECT 1 FROM decision WHERE run = ? LIMIT 1"
        return self.has_run(run) or bool(self._rows(statement, run))

    def run_names(self, limit: int) -> list[str]:
        """Return the names of the newest runs, newest first."""
        statement = "SELECT run FROM notice WHERE kind = 'run-start' AND run IS NOT NULL"
        rows = self._rows(f"{statement} ORDER BY id DESC LIMIT ?", limit)
        return list(dict.fromkeys(row[0] for row in rows))

    def runs(self, limit: int) -> list[LoggedRun]:
        """Return the newest runs, newest last, with how much was denied in each."""
        notices = [
            _notice_of(row)
            for row in self._rows(
                "SELECT n.* FROM notice n WHERE n.run IS NOT NULL AND n.kind IN (?, ?) ORDER BY id",
                *RUN_NOTICES,
            )
        ]
        denials = self._rows(
            f"SELECT d.run, d.id, coalesce(d.count, 1){_ATTEMPTS}"
            f" WHERE d.run IS NOT NULL AND {IS_SHOWN} AND {IS_DENIED} ORDER BY d.id"
        )
        return runs_of(notices, denials)[-limit:]

    def attempts_after(self, selection: Selection, number: int, limit: int) -> list[LoggedAttempt]:
        """Return the first `limit` attempts with an id above `number`, oldest first."""
        return self._attempts(selection, "d.id > ?", (number,), "ASC", limit)

    def failed_steps_between(
        self, selection: Selection, above: int, to: int
    ) -> list[LoggedAttempt]:
        """Return the tunnels that were allowed and failed, with an id above one and up to another.

        They are selected only once their outcome is known.
        """
        more = f"d.id > ? AND d.id <= ? AND {IS_FAILED_STEP}"
        return self._attempts(selection, more, (above, to), "ASC", _PAGE_ROWS)

    def notices_after(self, selection: Selection, number: int, limit: int) -> list[Notice]:
        """Return the first `limit` notices with an id above `number`, oldest first."""
        return self._notices(selection, "n.id > ?", (number,), "ASC", limit)

    def last_ids(self) -> tuple[int, int]:
        """Return the ids of the last decision and of the last notice."""
        decisions = self._rows("SELECT coalesce(max(id), -1) FROM decision")[0][0]
        return decisions, self._rows("SELECT coalesce(max(id), -1) FROM notice")[0][0]

    def usage(
        self, per: UsageGrouping, *, since_ns: int = 0, run: RunFilter | None = None
    ) -> list[UsageSum]:
        """Return the token usage by day, run or model, the most recently used last."""
        conditions = ["u.decision >= ?", "coalesce(u.at, u.decision) >= ?"]
        values: list[object] = [since_ns, since_ns]
        if run is not None:
            condition, more = run.condition("u")
            conditions.append(condition)
            values += more
        statement = sums_by(per, " AND ".join(conditions))
        return [UsageSum(*row) for row in self._rows(statement, *values)]

    def denials(self, run: RunFilter, *, since_ns: int = 0) -> list[DeniedRow]:
        """Return the denials of one run, equal ones as one row; the most frequent first."""
        condition, values = run.condition()
        reason = "CASE WHEN d.allowed THEN o.error ELSE d.reason END"
        columns = f"d.phase, d.scheme, d.target, d.method, d.path, {reason}, d.rule_source"
        statement = (
            f"SELECT {columns}, o.upstream, sum(coalesce(d.count, 1)) AS times{_ATTEMPTS}"
            f" WHERE d.id >= ? AND coalesce(d.at, d.id) >= ? AND {condition}"
            f" AND {IS_DENIED} AND NOT {IS_SUPERSEDED}"
            f" GROUP BY {columns}, o.upstream ORDER BY times DESC"
        )
        return [DeniedRow(*row) for row in self._rows(statement, since_ns, since_ns, *values)]

    def recorded_pages(
        self, *, since_ns: int = 0, run: RunFilter | None = None
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield all that clients asked of the proxy, page by page, oldest first.

        Columns: id, connection, how often, run, phase, scheme, target, method, path, allowed,
        reason, of the outcome error and upstream, and whether a grant or an answer decided. A
        gateway has another list, and a denial replaces the decision that it ends.
        """
        condition, values = ("1", list[str]()) if run is None else run.condition()
        statement = (
            "SELECT d.id, d.connection, coalesce(d.count, 1), d.run, d.phase, d.scheme, d.target,"  # noqa: S608 - constants, as above
            f" d.method, d.path, d.allowed, d.reason, o.error, o.upstream, {_IS_GRANTED}"
            " FROM decision d LEFT JOIN outcome o ON o.decision = coalesce(d.attempt, d.id)"
            f" WHERE d.id >= ? AND coalesce(d.at, d.id) >= ? AND {condition}"
            " AND substr(d.listener, 1, 7) <> 'gateway' ORDER BY d.id LIMIT ?"
        )
        # All at once: to ask for each row takes a fifth of the time.
        later = "SELECT attempt FROM decision WHERE attempt IS NOT NULL AND attempt >= ?"
        superseded = {number for (number,) in self._rows(later, since_ns)}
        start = since_ns
        # A page at a time: reading the whole log at once keeps a snapshot of it for seconds.
        while page := self._rows(statement, start, since_ns, *values, _LARGE_PAGE_ROWS):
            yield [row for row in page if row[0] not in superseded] if superseded else page
            start = page[-1][0] + 1

    # Only constants of this package are joined into statements; the user's values are bound.

    def _attempts(
        self, selection: Selection, more: str, bound: tuple[int, ...], order: str, limit: int
    ) -> list[LoggedAttempt]:
        condition, values = selection.condition_on_attempts()
        statement = (
            f"{_COLUMNS}{_ATTEMPTS} WHERE {condition} AND {more} ORDER BY d.id {order} LIMIT ?"
        )
        return [_attempt_of(row) for row in self._rows(statement, *values, *bound, limit)]

    def _notices(
        self, selection: Selection, more: str, bound: tuple[int, ...], order: str, limit: int
    ) -> list[Notice]:
        condition, values = selection.condition_on_notices()
        statement = (
            f"SELECT n.* FROM notice n WHERE {condition} AND {more}"  # noqa: S608
            f" ORDER BY n.id {order} LIMIT ?"
        )
        return [_notice_of(row) for row in self._rows(statement, *values, *bound, limit)]

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def _check(self) -> None:
        if self._rows("SELECT count(*) FROM sqlite_schema") == [(0,)]:
            raise NoAuditLogError(self._path)  # a proxy is just creating it
        if self._rows("PRAGMA application_id") != [(APPLICATION_ID,)]:
            raise ClaudeProxyError(
                "the file is not an audit log of claude-proxy",
                where=str(self._path),
                fix="name the state directory of the proxy with --statedir",
            )
        (version,) = self._rows("PRAGMA user_version")[0]
        if version in VIEWS_OF_OLDER:
            for statement in VIEWS_OF_OLDER[version].split(";"):
                self._rows(statement)
        elif version != len(MIGRATIONS):
            raise ClaudeProxyError(
                f"the audit log has schema {version}, this claude-proxy reads {len(MIGRATIONS)}",
                where=str(self._path),
                fix="use the version that writes it",
            )

    def _unreadable(self, error: sqlite3.Error) -> ClaudeProxyError:
        return ClaudeProxyError(
            f"the audit log cannot be read: {error}",
            where=str(self._path),
            fix="run this as the user whose proxy writes it",
        )


def _attempt_of(row: tuple[Any, ...]) -> LoggedAttempt:
    made, ended, used = row[:19], row[19:27], row[27:]
    number, connection, client, listener, phase, *rest = made[:14]
    scheme, target, method, path, allowed, reason, rule, rule_source, credential = rest
    run, attempt, at, count, last = made[14:]
    decision = DecisionMade(
        number,
        connection,
        client,
        listener,
        Phase(phase),
        scheme,
        target,
        method,
        path,
        bool(allowed),
        reason,
        rule,
        rule_source,
        credential,
        run=run,
        attempt=attempt,
        at=at or 0,
        count=count or 1,
        last=last or 0,
    )
    usage = None if used[0] is None else Usage(*used)
    outcome = None if ended[0] is None else OutcomeSeen(*ended)._replace(usage=usage)
    return LoggedAttempt(decision, outcome)


def _notice_of(row: tuple[Any, ...]) -> Notice:
    number, kind, text, run, at = row
    return Notice(number, kind, text, run=run, at=at or 0)


def _spelled(host: str) -> str:
    """Return the host as targets are written, or as typed: a denied target may be no host."""
    try:
        return normalise_host(host, unicode=True)
    except ValueError:
        return host.lower()


class Follower:
    """Returns the entries after those already shown, each once, in the order of recording."""

    def __init__(self, path: Path, selection: Selection, shown: list[LogEntry]) -> None:
        self._path = path
        self._selection = selection
        attempts = [entry.id for entry in shown if isinstance(entry, LoggedAttempt)]
        notices = [entry.id for entry in shown if isinstance(entry, Notice)]
        self._decision = max(attempts, default=-1)
        self._notice = max(notices, default=-1)
        self._awaited: dict[int, int] = {}  # attempts without an outcome: when they were first seen
        # Where the last calls began: a step is shown once it has failed, which may take a while.
        self._trail: deque[tuple[int, int]] = deque()
        self._late: set[int] = set()

    def news(self, now_ns: int) -> list[LogEntry]:
        """Return the new entries, oldest first; none while there is no file.

        `now_ns` is a monotonic time in nanoseconds.
        """
        try:
            with AuditReader(self._path) as reader:
                self._begin_again_in_a_new_file(reader)
                news: list[LogEntry] = [
                    *self._new_attempts(reader, now_ns),
                    *self._new_notices(reader),
                ]
        except NoAuditLogError:
            return []
        return sorted(news, key=lambda entry: entry.id)

    def _begin_again_in_a_new_file(self, reader: AuditReader) -> None:
        decision, notice = reader.last_ids()
        if decision < self._decision:
            self._decision = -1
            self._awaited.clear()
        if notice < self._notice:
            self._notice = -1

    def _new_attempts(self, reader: AuditReader, now_ns: int) -> Iterator[LoggedAttempt]:
        if not self._selection.has_attempts:
            return
        yield from self._late_failures(reader, now_ns)
        start = min(self._awaited, default=self._decision + 1) - 1
        page = reader.attempts_after(self._selection, start, _PAGE_ROWS)
        while page:
            for entry in page:
                if entry.is_failed_step:
                    self._late.add(entry.id)
                is_new = entry.id > self._decision
                if (is_new or entry.id in self._awaited) and not self._waits_for(entry, now_ns):
                    self._awaited.pop(entry.id, None)
                    yield entry
            self._decision = max(self._decision, page[-1].id)
            page = reader.attempts_after(self._selection, page[-1].id, _PAGE_ROWS)
        self._awaited = {
            number: seen
            for number, seen in self._awaited.items()
            if now_ns - seen < _OUTCOME_AWAITED_NS
        }

    def _late_failures(self, reader: AuditReader, now_ns: int) -> Iterator[LoggedAttempt]:
        """Yield steps before the last call that were not shown, as they had not failed yet."""
        self._trail.append((now_ns, self._decision))
        while now_ns - self._trail[0][0] > _FAILURE_AWAITED_NS:
            self._trail.popleft()
        start = self._trail[0][1]
        self._late = {number for number in self._late if number > start}
        for entry in reader.failed_steps_between(self._selection, start, self._decision):
            if entry.id not in self._late and entry.id not in self._awaited:
                self._late.add(entry.id)
                yield entry

    def _new_notices(self, reader: AuditReader) -> Iterator[Notice]:
        if not self._selection.has_notices:
            return
        while page := reader.notices_after(self._selection, self._notice, _PAGE_ROWS):
            yield from page
            self._notice = page[-1].id

    def _waits_for(self, entry: LoggedAttempt, now_ns: int) -> bool:
        """Return whether to wait for the outcome, which most attempts have within a moment."""
        if entry.outcome is not None or not entry.decision.allowed:
            return False
        seen = self._awaited.setdefault(entry.id, now_ns)
        return now_ns - seen < _OUTCOME_AWAITED_NS
