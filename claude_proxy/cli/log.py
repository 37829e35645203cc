"""`claude-proxy log`: show the audit log: what was decided, when, why and how it ended.

The file is opened read-only, and text that a client sent is escaped, so that it cannot send control
codes, forge a line or hide in one.
"""

import select
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, override

import click
from click.core import ParameterSource

from claude_proxy.audit.database import database_in
from claude_proxy.audit.escape import escape_field, escape_text
from claude_proxy.audit.queries import (
    AuditReader,
    Follower,
    HostFilter,
    ListenerFilter,
    LogEntry,
    LoggedAttempt,
    RunFilter,
    Selection,
    Show,
)
from claude_proxy.audit.sinks import (
    encoded,
    fields_of,
    fields_of_outcome,
    method_and_place,
    usage_text,
)
from claude_proxy.audit.state import State, is_passed_through, reason_of
from claude_proxy.audit.usage import UsageGrouping
from claude_proxy.cli import paths, usage_table
from claude_proxy.errors import ConfigError
from claude_proxy.events import Notice, OutcomeSeen

EPILOG: Final = """\b
Examples:
  claude-proxy log --denied --since 1h
  claude-proxy log --host .github.com --limit 200
  claude-proxy log --listener unix:/run/user/1000/proxy.sock --steps
  claude-proxy log --follow --json | jq .reason
  claude-proxy log --usage --since 7d
  claude-proxy log --usage --by run --json | jq .tokens

An allowed tunnel is represented by the requests in it; --steps lists the tunnel itself too.

--usage adds up the tokens that the Messages API reports: by day (local time, when the request
began), by run or by model. IN does not include tokens read from the cache.
"""

_POLL_S: Final = 0.5
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_COLUMNS: Final = {
    "TIME": 19,
    "ACTION": 7,
    "METHOD": 7,
    "TARGET": 44,
    "STATUS": 6,
    "UP": 5,
    "DOWN": 5,
    "TOOK": 6,
    "REASON": 12,
    "RULE": 0,
}
_NOTHING: Final = "-"
# Options that select single attempts, which --usage does not list.
_NOT_WITH_USAGE: Final = ("denied", "allowed", "host", "listener", "follow", "limit", "steps")
# Set as a variable these are preferences: ignored where they do not apply.
_PREFERENCES: Final = frozenset({"limit", "by"})
_ENOUGH_DIGITS: Final = 1000
_FEW: Final = 10
_MINUTE_MS: Final = 60_000


class Since(click.ParamType[int]):
    """An age ("90s", "30m", "1h", "2d", "1w") or a time in ISO 8601, local by default."""

    name = "since"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Any:
        if not isinstance(value, str):
            return value
        try:
            return parse_since(value, time.time_ns())
        except (ValueError, OverflowError):
            raise ConfigError(
                f'"{escape_text(value)}" is neither an age nor a time',
                where="--since or CLAUDE_PROXY_LOG_SINCE",
                fix="use a form like 90s, 30m, 1h, 2d, 2026-01-31 or 2026-01-31T09:30",
            ) from None


def parse_since(text: str, now_ns: int) -> int:
    """Return the time that `text` means, in nanoseconds since 1970; raise ValueError."""
    unit = _UNITS_S.get(text[-1:])
    if unit is not None and text[:-1].isascii() and text[:-1].isdecimal():
        moment_ns = now_ns - int(text[:-1]) * unit * 1_000_000_000
    else:
        # Without an offset it is local time, as in the table.
        moment = datetime.fromisoformat(text).astimezone()
        moment_ns = round(moment.timestamp() * 1e6) * 1000
    return max(0, moment_ns)


@click.command(name="log", epilog=EPILOG)
@click.option("--denied", envvar="CLAUDE_PROXY_LOG_DENIED", is_flag=True, help="Show only denials.")
@click.option(
    "--allowed",
    envvar="CLAUDE_PROXY_LOG_ALLOWED",
    is_flag=True,
    help="Show only what was allowed.",
)
@click.option(
    "--host",
    envvar="CLAUDE_PROXY_LOG_HOST",
    metavar="PATTERN",
    help="Show one host; *.example.com means its subdomains, .example.com both.",
)
@click.option(
    "--listener",
    envvar="CLAUDE_PROXY_LOG_LISTENER",
    metavar="NAME",
    help="Show connections of one listener, such as 127.0.0.1:9051 or unix:/path.sock.",
)
@click.option(
    "--run",
    envvar="CLAUDE_PROXY_LOG_RUN",
    metavar="NAME",
    help="Show what one `claude-proxy run` did.",
)
@click.option(
    "--since",
    envvar="CLAUDE_PROXY_LOG_SINCE",
    type=Since(),
    metavar="WHEN",
    help="Show entries since an age (90s, 30m, 1h, 2d) or a date and time.",
)
@click.option(
    "-f",
    "--follow",
    envvar="CLAUDE_PROXY_LOG_FOLLOW",
    is_flag=True,
    help="Keep showing new entries until Ctrl-C.",
)
@click.option(
    "--json",
    "as_json",
    envvar="CLAUDE_PROXY_LOG_JSON",
    is_flag=True,
    help="Print one JSON object per line.",
)
@click.option(
    "-n",
    "--limit",
    envvar="CLAUDE_PROXY_LOG_LIMIT",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="COUNT",
    help="Show at most this many of the newest entries.",
)
@click.option(
    "--steps",
    envvar="CLAUDE_PROXY_LOG_STEPS",
    is_flag=True,
    help="Also show the tunnels of allowed requests.",
)
@click.option(
    "--usage",
    envvar="CLAUDE_PROXY_LOG_USAGE",
    is_flag=True,
    help="Add up the tokens used at the Messages API; combine with --since, --run, --json.",
)
@click.option(
    "--by",
    envvar="CLAUDE_PROXY_LOG_BY",
    type=click.Choice(tuple(per.value for per in UsageGrouping)),
    help="How --usage groups its sums.  [default: day]",
)
@click.option(
    "--statedir",
    envvar="CLAUDE_PROXY_STATEDIR",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Directory of the audit log.  [default: ~/.local/state/claude-proxy]",
)
def command(
    *,
    denied: bool,
    allowed: bool,
    host: str | None,
    listener: str | None,
    run: str | None,
    since: int | None,
    follow: bool,
    as_json: bool,
    limit: int,
    steps: bool,
    usage: bool,
    by: str | None,
    statedir: Path | None,
) -> None:
    """Show what was decided, from the audit log."""
    path = database_in(paths.statedir_in_force() if statedir is None else statedir)
    run_filter = None if run is None else RunFilter(run)
    context = click.get_current_context()
    if usage:
        _check_goes_with_usage(context)
        per = UsageGrouping(by or UsageGrouping.DAY)
        _show_usage(path, per, since_ns=since or 0, run=run_filter, as_json=as_json)
        return
    if _is_asked(context, "by"):
        raise ConfigError(
            f"--by {by} needs --usage",
            where="--by or CLAUDE_PROXY_LOG_BY",
            fix=f"run: claude-proxy log --usage --by {by}",
        )
    if denied and allowed:
        raise ConfigError(
            "nothing is both denied and allowed",
            where="--denied and --allowed",
            fix="drop one of them; without them all attempts are shown",
        )
    selection = Selection(
        show=Show.DENIED if denied else Show.ALLOWED if allowed else Show.EVERYTHING,
        host=None if host is None else HostFilter.parse(host),
        listener=None if listener is None else ListenerFilter.parse(listener),
        run=run_filter,
        since_ns=since or 0,
        steps=steps,
    )
    line_of = json_line_of if as_json else row_of
    try:
        with AuditReader(path) as reader:
            entries = reader.newest(selection, limit)
        if not as_json and (entries or follow):
            click.echo(_row(_COLUMNS))
        _show(entries, line_of)
        if follow:
            _follow(Follower(path, selection, entries), line_of)
        elif not entries:
            click.echo("claude-proxy: no matching entries", err=True)
    except KeyboardInterrupt:
        # The way to end --follow, so not a failure.
        return


def _check_goes_with_usage(context: click.Context) -> None:
    for name in _NOT_WITH_USAGE:
        if _is_asked(context, name):
            raise ConfigError(
                f"--{name} selects single attempts, and --usage shows sums only",
                where=f"--{name} or CLAUDE_PROXY_LOG_{name.upper()}",
                fix="drop one of them; --usage works with --since and --run",
            )


def _is_asked(context: click.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    if source is ParameterSource.ENVIRONMENT:
        return name not in _PREFERENCES
    return source is ParameterSource.COMMANDLINE


def _show_usage(
    path: Path, per: UsageGrouping, *, since_ns: int, run: RunFilter | None, as_json: bool
) -> None:
    with AuditReader(path) as reader:
        sums = reader.usage(per, since_ns=since_ns, run=run)
    lines_of = usage_table.json_lines_of if as_json else usage_table.lines_of
    if sums:
        click.echo("\n".join(lines_of(per, sums)))
    else:
        click.echo("claude-proxy: no matching usage recorded", err=True)


def _follow(follower: Follower, line_of: Callable[[LogEntry], str]) -> None:
    while not _reader_has_left(_POLL_S):
        _show(follower.news(time.monotonic_ns()), line_of)


def _reader_has_left(wait_s: float) -> bool:
    """Wait; return early if nobody reads the output any more.

    Without this `claude-proxy log --follow | head` would end only with the next entry.
    """
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(
        happened & (select.POLLERR | select.POLLHUP) for _, happened in poll.poll(wait_s * 1000)
    )


def _show(entries: Iterable[LogEntry], line_of: Callable[[LogEntry], str]) -> None:
    text = "".join(f"{line_of(entry)}\n" for entry in entries)
    if text:
        click.echo(text, nl=False)


def json_line_of(entry: LogEntry) -> str:
    """Return an entry as one line of JSON: the decision and, in the same object, its outcome."""
    if isinstance(entry, Notice):
        return encoded(fields_of(entry))
    outcome = entry.outcome
    ended = dict.fromkeys(_OUTCOME_FIELDS) if outcome is None else fields_of_outcome(outcome)
    return encoded(fields_of(entry.decision) | {"state": entry.state.value} | ended)


_OUTCOME_FIELDS: Final = tuple(fields_of_outcome(OutcomeSeen(0, None, 0, 0, 0.0, None, None, None)))


def row_of(entry: LogEntry) -> str:
    """Return an entry as a row of the table."""
    if isinstance(entry, Notice):
        said = f"{escape_field(entry.kind)}: {escape_text(entry.text)}"
        return f"{_local_time(entry.time_ns)}  Notice   {said}"
    return _row(_cells_of(entry))


def _row(cells: Iterable[str]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, _COLUMNS.values(), strict=True))
    return "  ".join(padded).rstrip()


def _cells_of(attempt: LoggedAttempt) -> tuple[str, ...]:
    decision = attempt.decision
    method, place = method_and_place(decision)
    return (
        _local_time(decision.time_ns),
        attempt.state.capitalize(),
        method,
        place,
        *_outcome_cells(attempt.outcome),
        _reason_cell(attempt),
        _last_cell(attempt),
    )


def _reason_cell(attempt: LoggedAttempt) -> str:
    decision = attempt.decision
    if attempt.state is State.ALLOWED and is_passed_through(decision):
        return "passthrough"
    return escape_field(reason_of(decision, attempt.outcome))


def _last_cell(attempt: LoggedAttempt) -> str:
    """Return the last cell: the rule, then a credential and usage if there are any."""
    decision, outcome = attempt.decision, attempt.outcome
    parts = [escape_text(decision.rule_source or _NOTHING)]
    if decision.credential is not None:
        parts.append(f"credential {escape_text(decision.credential)}")
    if outcome is not None and outcome.usage is not None:
        parts.append(usage_text(outcome.usage))
    return "; ".join(parts)


def _outcome_cells(outcome: OutcomeSeen | None) -> tuple[str, str, str, str]:
    if outcome is None:
        return (_NOTHING,) * 4
    status = outcome.error if outcome.status is None else str(outcome.status)
    return (
        escape_field(status or _NOTHING),
        size_of(outcome.bytes_up),
        size_of(outcome.bytes_down),
        duration_of(outcome.duration_ms),
    )


def size_of(count: int) -> str:
    """Return a number of bytes in short form: "512", "1.5K", "23M"."""
    size, units = float(count), iter(("", "K", "M", "G", "T", "P"))
    unit = next(units)
    while size >= _ENOUGH_DIGITS and unit != "P":
        size, unit = size / 1024, next(units)
    return f"{size:.1f}{unit}" if unit and size < _FEW else f"{size:.0f}{unit}"


def duration_of(milliseconds: float) -> str:
    """Return a duration in short form: "12ms", "3.4s", "2m05s", "3h20m"."""
    if milliseconds < _ENOUGH_DIGITS:
        return f"{milliseconds:.0f}ms"
    if milliseconds < _MINUTE_MS:
        return f"{milliseconds / 1000:.1f}s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"


def _local_time(number: int) -> str:
    try:
        moment = datetime.fromtimestamp(number // 1_000_000_000, UTC).astimezone()
    except (OverflowError, ValueError, OSError):
        return _NOTHING
    return f"{moment:%Y-%m-%d %H:%M:%S}"
