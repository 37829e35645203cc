"""Retention: removes old rows from the audit log, a slice at a time.

Laws: a decision never waits for it, so each call removes a bounded slice. By age the oldest rows
go, if the clock can be trusted. By size the rows of the owner with the most go, and rows that go
before their age are reported. What ceilings count survives both.
"""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from claude_proxy.audit.clock import NEWEST, ClockWatch
from claude_proxy.audit.owner import owner_of
from claude_proxy.audit.shares import ROW_BYTES, Plan, SharePlanner
from claude_proxy.audit.usage import COUNTED_NS
from claude_proxy.events import Notice

SLICE: Final = 192  # more than come in between two calls, and well below a millisecond
_WINDOW: Final = 512  # rows that are looked at for those of one owner
_WINDOWS: Final = 3
# While shares are added up the log may exceed its size by a fourth; then the oldest rows go. Of a
# small log a flood fills that at once, so it may exceed its size by some thousand rows.
_EXCESS: Final = 4
_LEAST_EXCESS: Final = 4 * 1024 * 1024
# Less than all of the size, so that shares are added up now and then only.
_FILL: Final = 15 / 16
_MOST_NOTICES: Final = 20_000
_REPORT_EVERY_NS: Final = 600 * 1_000_000_000
_MIB: Final = 1024 * 1024
_DAY_NS: Final = 86_400 * 1_000_000_000
_MOST_NAMED: Final = 3

_TIME: Final = "coalesce(at, id)"
_OLDEST: Final = f"SELECT id, {_TIME} FROM decision WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608
_NEXT: Final = (
    f"SELECT id, client, run, {ROW_BYTES}, {_TIME} FROM decision"  # noqa: S608
    " WHERE id > ? ORDER BY id LIMIT ?"
)
_OLD_USAGE: Final = (
    "DELETE FROM usage WHERE decision IN (SELECT decision FROM usage"
    " WHERE decision < ? AND coalesce(at, decision) < ? ORDER BY decision LIMIT ?)"
)
_OLD_NOTICES: Final = (
    f"DELETE FROM notice WHERE id IN (SELECT id FROM notice WHERE {_TIME} < ?"  # noqa: S608
    " ORDER BY id LIMIT ?)"
)
_MANY_NOTICES: Final = (
    "DELETE FROM notice WHERE id IN (SELECT id FROM notice ORDER BY id DESC LIMIT -1 OFFSET ?)"
)

type _Row = tuple[int, str, str | None, int, int]  # id, client, run, bytes, time
type Execute = Callable[[str, tuple[object, ...]], sqlite3.Cursor]


class Retention:
    """Removes rows; used by the store, on its thread and connection."""

    def __init__(
        self, path: Path, execute: Execute, *, days: int, max_bytes: int, clock: ClockWatch
    ) -> None:
        self._execute = execute
        self._days = days
        self._max_bytes = max_bytes
        self._clock = clock
        self._planner = SharePlanner(path)
        self._plan: Plan | None = None
        self._cursor = 0
        self._young = -1  # rows up to this id are dated in the future, and are passed over
        self._removed: dict[str, int] = {}
        self._removed_times: tuple[int, int] | None = None
        self._reported_at: int | None = None

    def trim(self) -> None:
        """Remove a slice of what is too old, or too much."""
        now = self._clock.trusted_now()
        if now is not None:
            self._trim_by_age(now)
        used = self._used_bytes()
        if used > self._max_bytes:
            self._trim_by_size(used)
        elif self._plan is not None:
            self._plan = None

    def close(self, timeout_s: float) -> None:
        """Wait for the thread that adds up shares."""
        self._planner.close(timeout_s)

    # By age.

    def _trim_by_age(self, now: int) -> None:
        horizon = max(0, now - self._days * _DAY_NS)
        rows = self._execute(_OLDEST, (self._young, 1)).fetchall()
        if rows and rows[0][1] >= horizon and rows[0][1] <= now:
            return
        rows = self._execute(_OLDEST, (self._young, SLICE)).fetchall()
        old = [number for number, moment in rows if moment < horizon]
        if rows and not old and rows[0][1] > now:
            self._young = self._last_of_future(rows, now)
        self._in_transaction(lambda: self._remove_old(old, horizon, now))

    @staticmethod
    def _last_of_future(rows: list[tuple[int, int]], now: int) -> int:
        """Return the last of the first rows that are dated in the future."""
        last = 0
        for number, moment in rows:
            if moment <= now:
                break
            last = number
        return last

    def _remove_old(self, old: list[int], horizon: int, now: int) -> None:
        self._delete(old)
        self._execute(_OLD_NOTICES, (horizon, SLICE))
        counted = min(horizon, now - COUNTED_NS)
        self._execute(_OLD_USAGE, (counted, counted, SLICE))

    # By size.

    def _trim_by_size(self, used: int) -> None:
        if self._plan is None or self._plan.is_done:
            self._plan = self._planner.plan(_FILL * self._max_bytes / used)
            self._cursor = 0 if self._plan is None else self._plan.start - 1
        plan = self._plan
        if used > self._max_bytes + max(self._max_bytes // _EXCESS, _LEAST_EXCESS):
            rows = self._execute(_NEXT, (0, SLICE)).fetchall()
            self._in_transaction(lambda: self._remove_early(rows))
        elif plan is not None:
            self._in_transaction(lambda: self._follow(plan))

    def _follow(self, plan: Plan) -> None:
        """Remove the next slice of the rows that the plan is about."""
        for _ in range(_WINDOWS):
            rows = self._execute(_NEXT, (self._cursor, _WINDOW)).fetchall()
            if not rows:
                plan.excess.clear()  # the end of the log; the next plan knows better
                return
            taken = []
            for row in rows:
                self._cursor = row[0]
                if plan.takes(owner_of(row[1], row[2]), row[3]):
                    taken.append(row)
                if len(taken) >= SLICE:
                    break
            self._remove_early(taken)
            if taken or plan.is_done:
                return

    def _remove_early(self, rows: list[_Row]) -> None:
        self._delete([row[0] for row in rows])
        self._execute(_MANY_NOTICES, (_MOST_NOTICES,))
        for _, client, run, _, moment in rows:
            owner = owner_of(client, run)
            self._removed[owner] = self._removed.get(owner, 0) + 1
            first, last = self._removed_times or (moment, moment)
            self._removed_times = min(first, moment), max(last, moment)

    def report(self, now_ns: int, since_boot_ns: int, *, final: bool = False) -> Notice | None:
        """Return a notice if rows were removed before their age; every ten minutes at most.

        The `final` one is for the end, and does not wait.
        """
        if self._removed_times is None or not (final or self._is_due(since_boot_ns)):
            return None
        first, last = self._removed_times
        removed, self._removed, self._removed_times = self._removed, {}, None
        if last < now_ns - self._days * _DAY_NS:
            return None
        self._reported_at = since_boot_ns
        greedy = sorted(removed, key=lambda owner: -removed[owner])
        parts = [f"{removed[owner]:,} of {owner}" for owner in greedy[:_MOST_NAMED]]
        if len(greedy) > _MOST_NAMED:
            parts.append(f"and others of {len(greedy) - _MOST_NAMED} more clients")
        text = (
            f"the audit log has reached its size of {self._max_bytes / _MIB:,.0f} MiB, so events"
            f" younger than {self._days} days were removed: {', '.join(parts)}"
            f" ({_shown(first)} to {_shown(last)}); a larger --audit-size keeps more"
        )
        return Notice(0, "rows-dropped", text)

    def _is_due(self, since_boot_ns: int) -> bool:
        reported = self._reported_at
        return reported is None or since_boot_ns - reported >= _REPORT_EVERY_NS

    # Both.

    def _delete(self, numbers: list[int]) -> None:
        for number in numbers:
            self._execute("DELETE FROM decision WHERE id = ?", (number,))
            self._execute("DELETE FROM outcome WHERE decision = ?", (number,))

    def _in_transaction(self, work: Callable[[], None]) -> None:
        self._execute("BEGIN IMMEDIATE", ())
        work()
        self._execute("COMMIT", ())

    def _used_bytes(self) -> int:
        pages = self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")
        return pages * self._number("PRAGMA page_size")

    def _number(self, statement: str) -> int:
        number: int = self._execute(statement, ()).fetchone()[0]
        return number


def newest_times(execute: Execute) -> list[int]:
    """Return the times of the newest rows."""
    statement = f"SELECT {_TIME} FROM decision ORDER BY id DESC LIMIT ?"  # noqa: S608
    return [row[0] for row in execute(statement, (NEWEST,))]


def _shown(time_ns: int) -> str:
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%d %H:%M}Z"
