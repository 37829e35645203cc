"""The table of `claude-proxy log`: a row for each attempt, fitted to the terminal, in colour.

What a client sent is escaped, so that it cannot send control codes. Pure but for the question how
wide the terminal is.
"""

import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import Final

import click

from claude_proxy.audit.escape import escape_field, escape_text
from claude_proxy.audit.queries import LogEntry, LoggedAttempt
from claude_proxy.audit.sinks import method_and_place, usage_text
from claude_proxy.audit.state import State, is_passed_through, reason_of, unseen_word
from claude_proxy.cli.short_figures import UNKNOWN, duration_of, local_clock, local_time, size_of
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.events import DecisionMade, Notice, OutcomeSeen

# Widths to which shorter cells are padded; a longer cell shifts only its own row.
_WIDTHS: Final = {
    "TIME": 19,
    "ACTION": 7,
    "METHOD": 7,
    "TARGET": 44,
    "STATUS": 6,
    "UP": 5,
    "DOWN": 5,
    "TOOK": 6,
    "REASON": 20,
    "RUN": 10,
    "RULE": 0,
}
# In a terminal longer cells are cut, so that a row is a line.
_FITTED: Final = _WIDTHS | {"REASON": 22, "RUN": 12, "RULE": 18}
_CLOCK: Final = "the time of day alone"
_CLOCK_WIDTH: Final = 8
# What a narrow terminal does without, in this order, so that the target can be read.
_LESS_IMPORTANT: Final = ("UP", "DOWN", "TOOK", "RULE", "STATUS", "METHOD", "RUN", "TIME")
_LEAST_TARGET: Final = 28
_GAP: Final = "  "
_REPEAT_NS: Final = 60_000_000_000
_CUT: Final = "…"

_COLOURS: Final = {State.DENIED: "red", State.FAILED: "yellow", State.ALLOWED: "green"}


@dataclass(frozen=True, slots=True)
class Look:
    """How the table is printed: as wide as it is, or fitted; plain, or in colour."""

    width: int | None = None  # of the terminal; None: the table is as wide as it is
    colour: bool = False
    run: bool = False  # whether there is a column for the run

    @classmethod
    def of_output(cls, environ: Mapping[str, str], *, run: bool) -> "Look":
        """Return the look for standard output: plain and unfitted unless it is a terminal."""
        if not sys.stdout.isatty():
            return cls(run=run)
        # See no-color.org.
        colour = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        return cls(shutil.get_terminal_size().columns, colour, run)

    def heading(self) -> str:
        """Return the names of the columns."""
        return self._line({name: name for name in _WIDTHS}, None)

    def entry(self, entry: LogEntry) -> str:
        """Return an attempt or a notice as a row."""
        if isinstance(entry, Notice):
            said = f"{escape_field(entry.kind)}: {escape_text(entry.text)}"
            return f"{local_time(entry.time_ns)}{_GAP}Notice {_GAP}{said}"
        cells = _cells_of(entry)
        if self._columns().get("TIME") == _CLOCK_WIDTH:
            cells["TIME"] = local_clock(entry.time_ns)
        return self._line(cells, _COLOURS[entry.state])

    def _columns(self) -> dict[str, int]:
        """Return the columns that there is room for, with their widths."""
        names = [name for name in _WIDTHS if self.run or name != "RUN"]
        if self.width is None:
            return {name: _WIDTHS[name] for name in names}
        columns = {name: _FITTED[name] for name in names}
        for name in ("", _CLOCK, *_LESS_IMPORTANT):
            if name == _CLOCK:
                columns["TIME"] = _CLOCK_WIDTH
            else:
                columns.pop(name, None)
            others = sum(columns.values()) - columns["TARGET"] + len(_GAP) * (len(columns) - 1)
            columns["TARGET"] = max(1, self.width - others)
            if columns["TARGET"] >= _LEAST_TARGET:
                break
        return columns

    def _line(self, cells: Mapping[str, str], colour: str | None) -> str:
        columns = self._columns()
        parts = []
        for name, width in columns.items():
            text = cells[name] if self.width is None else _cut(cells[name], width)
            padded = text.ljust(width)
            is_coloured = self.colour and colour is not None and name == "ACTION"
            parts.append(click.style(padded, fg=colour) if is_coloured else padded)
        return _GAP.join(parts).rstrip()


def fold_repeats(entries: Iterable[LogEntry]) -> list[LogEntry]:
    """Return the entries with equal denials that follow each other within a minute as one."""
    folded: list[LogEntry] = []
    for entry in entries:
        before = folded[-1] if folded else None
        if (
            isinstance(entry, LoggedAttempt)
            and isinstance(before, LoggedAttempt)
            and _is_repeat(entry, before)
        ):
            folded[-1] = _with_repeat(before, entry)
        else:
            folded.append(entry)
    return folded


def _is_repeat(entry: LoggedAttempt, before: LoggedAttempt) -> bool:
    if entry.state is not State.DENIED or before.state is not State.DENIED:
        return False
    since_ns = entry.time_ns - (before.decision.last or before.time_ns)
    return since_ns <= _REPEAT_NS and _what_of(entry) == _what_of(before)


def _what_of(attempt: LoggedAttempt) -> tuple[object, ...]:
    """Return what a row shows of an attempt, less the time and the figures."""
    decision, outcome = attempt.decision, attempt.outcome
    return (
        *method_and_place(decision),
        reason_of(decision, outcome),
        None if outcome is None else outcome.status,
        decision.run,
        decision.rule_source,
        decision.credential,
    )


def _with_repeat(before: LoggedAttempt, entry: LoggedAttempt) -> LoggedAttempt:
    decision, repeat = before.decision, entry.decision
    counted = decision._replace(
        count=decision.count + repeat.count, last=repeat.last or repeat.time_ns
    )
    return LoggedAttempt(counted, before.outcome)


def _cut(text: str, width: int) -> str:
    """Return `text` with its middle left out if it is longer than `width`."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 3
    return f"{text[: width - 1 - tail]}{_CUT}{text[len(text) - tail :]}"


def _cells_of(attempt: LoggedAttempt) -> dict[str, str]:
    decision = attempt.decision
    method, place = method_and_place(decision)
    status, up, down, took = _outcome_cells(attempt.outcome)
    return {
        "TIME": local_time(decision.time_ns),
        "ACTION": attempt.state.capitalize(),
        "METHOD": method,
        "TARGET": place,
        "STATUS": status,
        "UP": up,
        "DOWN": down,
        "TOOK": took,
        "REASON": _reason_cell(attempt),
        "RUN": escape_field(decision.run or UNKNOWN),
        "RULE": _last_cell(attempt),
    }


def _reason_cell(attempt: LoggedAttempt) -> str:
    decision = attempt.decision
    if attempt.state is State.ALLOWED and is_passed_through(decision):
        return unseen_word(decision)
    times = f" ×{decision.count:,}" if decision.count > 1 else ""
    return escape_field(reason_of(decision, attempt.outcome)) + times


def _last_cell(attempt: LoggedAttempt) -> str:
    """Return the last cell: the rule, then a credential and usage if there are any."""
    decision, outcome = attempt.decision, attempt.outcome
    parts = [escape_text(decision.rule_source or UNKNOWN)]
    if decision.count > 1:
        parts.append(_repeated(decision))
    if decision.credential is not None:
        parts.append(f"credential {escape_text(decision.credential)}")
    if outcome is not None and outcome.usage is not None:
        parts.append(usage_text(outcome.usage))
    return "; ".join(parts)


def _repeated(decision: DecisionMade) -> str:
    return f"{decision.count:,} times until {local_clock(decision.last or decision.time_ns)}"


def _outcome_cells(outcome: OutcomeSeen | None) -> tuple[str, str, str, str]:
    if outcome is None:
        return (UNKNOWN,) * 4
    return (
        UNKNOWN if outcome.status is None else str(outcome.status),
        size_of(outcome.bytes_up),
        size_of(outcome.bytes_down),
        duration_of(outcome.duration_ms),
    )
