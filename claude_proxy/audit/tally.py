"""Tallies of the audit log: attempts counted by host, run or reason, and the list of runs; pure."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Any, Final

from claude_proxy.config.settings import IN_IMAGE
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.events import Notice
from claude_proxy.wire.authority import Authority

RUN_START: Final = "run-start"
RUN_END: Final = "run-end"
RUN_NOTICES: Final = (RUN_START, RUN_END)

_EXIT_CODE: Final = "exit code "


class Grouping(StrEnum):
    """What attempts are counted by."""

    HOST = "host"
    RUN = "run"
    REASON = "reason"


@dataclass(slots=True)
class Tally:
    """How many attempts of one group were denied, failed and allowed."""

    name: str | None  # the host, run or reason; None: no run
    denied: int = 0
    failed: int = 0
    allowed: int = 0
    last: int = 0  # when the last of them was made, in nanoseconds since 1970
    reasons: dict[str, int] = field(default_factory=dict)  # of those denied or failed


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """One `claude-proxy run`."""

    name: str
    program: str
    start: int  # nanoseconds since 1970
    end: int | None  # None: it goes on, or was killed
    exit_code: int | None
    denied: int


def added_up(rows: Iterable[tuple[Any, ...]], per: Grouping) -> list[Tally]:
    """Return the tallies of rows of name, reason, denied, failed, count and time."""
    found: dict[str | None, Tally] = {}
    for name, reason, denied, failed, count, last in rows:
        group = _group_of(name, reason, per)
        tally = found.setdefault(group, Tally(group))
        if denied:
            tally.denied += count
        elif failed:
            tally.failed += count
        else:
            tally.allowed += count
        if denied or failed:
            tally.reasons[reason] = tally.reasons.get(reason, 0) + count
        tally.last = max(tally.last, last)
    return sorted(found.values(), key=lambda one: (-one.denied, -one.failed, -one.allowed))


def _group_of(name: str | None, reason: str, per: Grouping) -> str | None:
    if per is Grouping.REASON:
        return reason
    if per is Grouping.RUN or name is None:
        return name
    try:
        return Authority.parse(name).host
    except ValueError:
        return name


def runs_of(notices: Sequence[Notice], denials: Iterable[tuple[str, int, int]]) -> list[LoggedRun]:
    """Return the runs that notices tell of, in the order of their starts.

    `denials` are names, ids and counts in the order of ids. A name may be that of several runs,
    one after the other.
    """
    counts = _Counts(denials)
    runs = []
    later: dict[str, int] = {}  # the id at which the next run of a name begins
    for start, end in reversed(_paired(notices)):
        name = start.run or ""
        denied = counts.before(name, later.get(name, _AFTER_ALL)) - counts.before(name, start.id)
        later[name] = start.id
        runs.append(_run_of(start, end, denied))
    return runs[::-1]


def _paired(notices: Iterable[Notice]) -> list[tuple[Notice, Notice | None]]:
    """Return each start with its end, if it has ended."""
    open_runs: dict[str | None, int] = {}  # where the last one of a name is in `found`
    found: list[tuple[Notice, Notice | None]] = []
    for notice in notices:
        if notice.kind == RUN_START:
            open_runs[notice.run] = len(found)
            found.append((notice, None))
        elif notice.run in open_runs:
            at = open_runs.pop(notice.run)
            found[at] = found[at][0], notice
    return found


class _Counts:
    """Denials of each run, added up in the order of their ids."""

    def __init__(self, denials: Iterable[tuple[str, int, int]]) -> None:
        self._numbers: dict[str, list[int]] = {}
        self._sums: dict[str, list[int]] = {}
        for name, number, count in denials:
            self._numbers.setdefault(name, []).append(number)
            so_far = self._sums.setdefault(name, [0])
            so_far.append(so_far[-1] + count)

    def before(self, name: str, number: int) -> int:
        """Return how many denials a run has up to an id."""
        return self._sums.get(name, [0])[bisect_right(self._numbers.get(name, []), number)]


_AFTER_ALL: Final = 1 << 63


def _run_of(start: Notice, end: Notice | None, denied: int) -> LoggedRun:
    return LoggedRun(
        name=start.run or "",
        program=start.text.partition(": ")[2].partition(IN_IMAGE)[0],
        start=start.time_ns,
        end=None if end is None else end.time_ns,
        exit_code=None if end is None else _exit_code_of(end.text),
        denied=denied,
    )


def _exit_code_of(text: str) -> int | None:
    code = text.rpartition(_EXIT_CODE)[2]
    return int(code) if code.isascii() and code.isdecimal() and len(code) < 6 else None  # noqa: PLR2004
