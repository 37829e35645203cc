"""Queries of the audit log: read-only, beside a running proxy or after a crash.

Law: reading delays no writer. Every result is read completely before it is returned, because a
reader that keeps a snapshot (a pager, for example) makes the write-ahead log grow.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from claude_proxy.audit.database import APPLICATION_ID, MIGRATIONS, connect
from claude_proxy.audit.usage import UsageGrouping, UsageSum, sums_by
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.events import PASSTHROUGH_SCHEME, DecisionMade, Notice, OutcomeSeen, Phase, Usage
from claude_proxy.wire.authority import normalise_host

_BUSY_S: Final = 5.0
_PAGE_ROWS: Final = 1000
_LOOK_BACK_NS: Final = 5_000_000_000
_OUTCOME_AWAITED_NS: Final = 1_000_000_000

_RUN: Final = ", run "

# `sinks.is_shown` in SQL: what is shown without --steps.
_SHOWN: Final = (
    "(NOT d.allowed OR d.phase = 'request'"
    f" OR (d.phase = '{Phase.CONNECT.value}' AND d.scheme = '{PASSTHROUGH_SCHEME}'))"
)


@dataclass(frozen=True, slots=True)
class LoggedAttempt:
    """A decision, and its outcome if the attempt has ended."""

    decision: DecisionMade
    outcome: OutcomeSeen | None

    @property
    def id(self) -> int:
        """The id of the decision, which is also its time."""
        return self.decision.id


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
    """One `claude-proxy run`; the client's column ends in ", run NAME: COMMAND"."""

    name: str

    def condition(self, client: str = "d.client") -> tuple[str, list[str]]:
        """Return the filter in SQL, over the column `client`."""
        # Only the first place: nothing before it contains a comma, a command may contain anything.
        wanted = f"{_RUN}{self.name}: "
        return f"substr({client}, instr({client}, ?), length(?)) = ?", [_RUN, wanted, wanted]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries to select."""

    allowed: bool | None = None  # None: both
    host: HostFilter | None = None
    listener: ListenerFilter | None = None
    run: RunFilter | None = None
    since_ns: int = 0
    steps: bool = False  # also allowed decisions on the way to a request

    @property
    def filters(self) -> "list[HostFilter | ListenerFilter | RunFilter]":
        """The filters that select attempts."""
        return [one for one in (self.host, self.listener, self.run) if one is not None]

    @property
    def notices(self) -> bool:
        """Whether the proxy's own notices are selected."""
        return self.allowed is None and not self.filters


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
        return self._entries(selection, selection.since_ns, limit, newest=True)

    def after(self, selection: Selection, number: int, limit: int) -> list[LogEntry]:
        """Return the first `limit` entries with an id above `number`, oldest first."""
        return self._entries(selection, max(selection.since_ns, number + 1), limit, newest=False)

    def usage(
        self, per: UsageGrouping, *, since_ns: int = 0, run: RunFilter | None = None
    ) -> list[UsageSum]:
        """Return the token usage by day, run or model, the most recently used last."""
        conditions, values = ["u.decision >= ?"], list[object]([since_ns])
        if run is not None:
            condition, more = run.condition("u.client")
            conditions.append(condition)
            values += more
        statement = sums_by(per, " AND ".join(conditions))
        return [UsageSum(*row) for row in self._rows(statement, *values)]

    def _entries(
        self, selection: Selection, start: int, limit: int, *, newest: bool
    ) -> list[LogEntry]:
        order = "DESC" if newest else "ASC"
        entries: list[LogEntry] = list(self._attempts(selection, start, limit, order))
        if selection.notices:
            entries += self._notices(start, limit, order)
            entries.sort(key=lambda entry: entry.id, reverse=newest)
        entries = entries[:limit]
        return entries[::-1] if newest else entries

    def _attempts(
        self, selection: Selection, start: int, limit: int, order: str
    ) -> Iterator[LoggedAttempt]:
        conditions, values = ["d.id >= ?"], list[object]([start])
        if not selection.steps:
            conditions.append(_SHOWN)
        if selection.allowed is not None:
            conditions.append("d.allowed = ?")
            values.append(selection.allowed)
        for each in selection.filters:
            condition, more = each.condition()
            conditions.append(condition)
            values += more
        # Only constants of this module are joined; the user's values are bound.
        statement = (
            "SELECT d.*, o.*, u.model, u.tokens_in, u.tokens_out, u.cache_written, u.cache_read"  # noqa: S608
            " FROM decision d LEFT JOIN outcome o ON o.decision = d.id"
            " LEFT JOIN usage u ON u.decision = d.id"
            f" WHERE {' AND '.join(conditions)} ORDER BY d.id {order} LIMIT ?"
        )
        return map(_attempt_of, self._rows(statement, *values, limit))

    def _notices(self, start: int, limit: int, order: str) -> Iterator[Notice]:
        statement = f"SELECT * FROM notice WHERE id >= ? ORDER BY id {order} LIMIT ?"  # noqa: S608
        return (Notice(*row) for row in self._rows(statement, start, limit))

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
        if version != len(MIGRATIONS):
            raise ClaudeProxyError(
                f"the audit log has schema {version}, this claude-proxy reads {len(MIGRATIONS)}",
                where=str(self._path),
                fix="use the version that writes it; a newer one migrates it when it starts",
            )

    def _unreadable(self, error: sqlite3.Error) -> ClaudeProxyError:
        return ClaudeProxyError(
            f"the audit log cannot be read: {error}",
            where=str(self._path),
            fix="run this as the user whose proxy writes it",
        )


def _attempt_of(row: tuple[Any, ...]) -> LoggedAttempt:
    made, ended, used = row[:14], row[14:22], row[22:]
    number, connection, client, listener, phase, *rest = made
    scheme, target, method, path, allowed, reason, rule, rule_source, credential = rest
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
    )
    usage = None if used[0] is None else Usage(*used)
    outcome = None if ended[0] is None else replace(OutcomeSeen(*ended), usage=usage)
    return LoggedAttempt(decision, outcome)


def _spelled(host: str) -> str:
    """Return the host as targets are written, or as typed: a denied target may be no host."""
    try:
        return normalise_host(host, unicode=True)
    except ValueError:
        return host.lower()


class Follower:
    """Returns the entries after those already shown, each once."""

    def __init__(self, path: Path, selection: Selection, shown: list[LogEntry]) -> None:
        self._path = path
        self._selection = selection
        self._floor = shown[-1].id if shown else selection.since_ns - 1
        self._seen: set[int] = set()
        self._asked_ns: int | None = None

    def news(self, now_ns: int) -> list[LogEntry]:
        """Return the new entries, oldest first; none while there is no file."""
        try:
            with AuditReader(self._path) as reader:
                return list(self._unseen(reader, now_ns))
        except NoAuditLogError:
            return []

    def _unseen(self, reader: AuditReader, now_ns: int) -> Iterator[LogEntry]:
        asked_ns, self._asked_ns = self._asked_ns or now_ns, now_ns
        # Two proxies on one file do not write in the order of their ids: look back a little.
        start = max(self._floor, asked_ns - _LOOK_BACK_NS)
        self._seen = {number for number in self._seen if number > start}
        page: list[LogEntry] = reader.after(self._selection, start, _PAGE_ROWS)
        while page:
            for entry in page:
                if entry.id not in self._seen and not _is_about_to_end(entry, now_ns):
                    self._seen.add(entry.id)
                    yield entry
            page = reader.after(self._selection, page[-1].id, _PAGE_ROWS)


def _is_about_to_end(entry: LogEntry, now_ns: int) -> bool:
    """Return whether to wait for the outcome, which most attempts have within a moment."""
    if isinstance(entry, Notice) or entry.outcome is not None or not entry.decision.allowed:
        return False
    return now_ns - entry.id < _OUTCOME_AWAITED_NS
