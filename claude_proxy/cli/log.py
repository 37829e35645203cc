"""`claude-proxy log`: shows the audit log as a table, or as JSON for other programs."""

import os
import select
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import click
from click.core import ParameterSource

from claude_proxy.audit.database import database_in
from claude_proxy.audit.denials import Denials, DeniedRow
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
from claude_proxy.audit.sinks import encoded, fields_of, fields_of_outcome
from claude_proxy.audit.state import reason_of
from claude_proxy.audit.tally import Grouping
from claude_proxy.audit.usage import UsageGrouping
from claude_proxy.cli import paths, tally_table, usage_table
from claude_proxy.cli.log_table import Look, fold_repeats
from claude_proxy.cli.since import Since
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.events import WARM_UPSTREAM, Notice, OutcomeSeen

EPILOG: Final = """\b
Examples:
  claude-proxy log --denied --since today
  claude-proxy log --run last --failed
  claude-proxy log --by host --since 2h
  claude-proxy log --host .github.com --limit 200
  claude-proxy log --listener unix:/run/user/1000/proxy.sock --steps
  claude-proxy log --notices --run last
  claude-proxy log --follow --json | jq .reason
  claude-proxy log --usage --since 7d
  claude-proxy log --usage --by run --json | jq .tokens

An attempt is denied, failed (it was allowed, and came to nothing) or allowed. REASON says why.
Many equal denials within a minute are one row, with their number. An allowed tunnel is represented
by the requests in it; --steps lists the tunnel itself too. `claude-proxy runs` lists the runs.

--usage adds up the tokens that the Messages API reports: by day (local time, when the request
began), by run or by model. IN does not include tokens read from the cache.

--notices leaves out the connections that were opened ahead of a request (warm connections), as they
are many; --kind warm-upstream shows them. --json leaves out nothing.
"""

_POLL_S: Final = 0.5
_LAST: Final = "last"
# Options that select single attempts, which --usage does not list.
_NOT_WITH_USAGE: Final = (
    *(
        "denied",
        "failed",
        "allowed",
        "host",
        "listener",
        "follow",
        "limit",
        "steps",
        "notices",
        "kind",
    ),
)
_NOT_WITH_NOTICES: Final = ("denied", "failed", "allowed", "host", "listener", "steps", "by")
_NOT_WITH_BY: Final = ("follow", "steps")
_OF_STATE: Final = ("denied", "failed", "allowed")
# Set as a variable these are preferences: ignored where they do not apply.
_PREFERENCES: Final = frozenset({"limit", "by"})
_BY: Final = tuple(dict.fromkeys([*map(str, Grouping), *map(str, UsageGrouping)]))


@click.command(name="log", epilog=EPILOG)
@click.option("--denied", envvar="CLAUDE_PROXY_LOG_DENIED", is_flag=True, help="Show only denials.")
@click.option(
    "--failed",
    envvar="CLAUDE_PROXY_LOG_FAILED",
    is_flag=True,
    help="Show only what was allowed and came to nothing.",
)
@click.option(
    "--allowed",
    envvar="CLAUDE_PROXY_LOG_ALLOWED",
    is_flag=True,
    help="Show only what was allowed, including what failed then.",
)
@click.option(
    "--notices",
    envvar="CLAUDE_PROXY_LOG_NOTICES",
    is_flag=True,
    help="Show what the proxy reports of itself: starts, policies applied, runs.",
)
@click.option(
    "--kind",
    envvar="CLAUDE_PROXY_LOG_KIND",
    metavar="KIND",
    help="Show only notices of one kind, such as warm-upstream or policy-applied.",
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
    help="Show what one `claude-proxy run` did; last means the newest.",
)
@click.option(
    "--since",
    envvar="CLAUDE_PROXY_LOG_SINCE",
    type=Since(),
    metavar="WHEN",
    help="Show entries since an age (90s, 30m, 2h, 2d), today, yesterday, or a date and time.",
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
    type=click.Choice(_BY),
    help="Count attempts by host, run or reason; with --usage: sums by day, run or model.",
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
    failed: bool,
    allowed: bool,
    notices: bool,
    kind: str | None,
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
    context = click.get_current_context()
    notices = notices or kind is not None
    _refuse_contradictions(context, notices=notices, usage=usage, by=by)
    run_filter = None if run is None else _run_filter(path, run)
    if usage:
        per = UsageGrouping(by or UsageGrouping.DAY)
        _show_usage(path, per, since_ns=since or 0, run=run_filter, as_json=as_json)
        return
    selection = Selection(
        show=_show_of(denied=denied, failed=failed, allowed=allowed),
        host=None if host is None else HostFilter.parse(host),
        listener=None if listener is None else ListenerFilter.parse(listener),
        run=run_filter,
        since_ns=since or 0,
        steps=steps,
        # In JSON everything is in one stream, where programs tell the kinds apart.
        notices=True if notices else None if as_json else False,
        kind=kind,
        kind_left_out=None if as_json or kind is not None else WARM_UPSTREAM,
    )
    if by is not None and _is_asked(context, "by"):
        _show_tallies(path, selection, Grouping(by), limit, as_json=as_json)
        return
    try:
        _show_entries(
            _Output(
                path=path,
                selection=selection,
                limit=limit,
                as_json=as_json,
                follow=follow,
                elsewhere=statedir is not None,
            )
        )
    except KeyboardInterrupt:
        # The way to end --follow, so not a failure.
        return


_OTHER_LIST: Final = (
    "these change your usual list; if the proxy of this log has another, add its --allowlist, "
    "--policy or --confdir"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    """Which entries to show, and how."""

    path: Path
    selection: Selection
    limit: int
    as_json: bool
    follow: bool
    elsewhere: bool  # it is a log that was named, maybe of a proxy with another list


def _show_entries(output: _Output) -> None:
    selection, limit = output.selection, output.limit
    with AuditReader(output.path) as reader:
        entries = reader.newest(selection, limit)
        total = reader.count(selection) if len(entries) == limit else len(entries)
        rest = selection.left_out() if selection.has_notices else None
        left_out = 0 if rest is None else reader.count(rest)
    has_runs = any(not isinstance(entry, Notice) and entry.decision.run for entry in entries)
    look = Look.of_output(os.environ, run=has_runs and selection.run is None)
    line_of = json_line_of if output.as_json else look.entry
    if not output.as_json and selection.has_attempts and (entries or output.follow):
        click.echo(look.heading())
    _show(entries if output.as_json else fold_repeats(entries), line_of)
    if total > len(entries):
        more = f"showing the last {len(entries):,} of {total:,}; -n {total} shows all"
        click.echo(f"claude-proxy: {more}", err=True)
    if selection.show is Show.DENIED and not (output.as_json or output.follow):
        _advise(entries, elsewhere=output.elsewhere)
    if not entries and not output.follow:
        click.echo("claude-proxy: no matching entries", err=True)
    if left_out:
        kind = selection.kind_left_out
        notices, them = ("notice is", "it") if left_out == 1 else ("notices are", "them")
        more = f"{left_out:,} {kind} {notices} left out; --kind {kind} shows {them}"
        click.echo(f"claude-proxy: {more}", err=True)
    if output.follow:
        _follow(Follower(output.path, selection, entries), line_of)


def _advise(entries: Iterable[LogEntry], *, elsewhere: bool) -> None:
    """Print what would allow just what was denied, beside the table.

    The log does not say which list was in force.
    """
    denials = Denials()
    for entry in entries:
        if isinstance(entry, LoggedAttempt):
            address = None if entry.outcome is None else entry.outcome.upstream
            row = DeniedRow.of(entry.decision)
            reason = reason_of(entry.decision, entry.outcome)
            denials.add(row._replace(reason=reason, address=address, times=entry.decision.count))
    if commands := denials.commands():
        click.echo("claude-proxy: what would allow the most frequent ones:", err=True)
    for command in commands:
        click.echo(f"  {command}", err=True)
    if commands and elsewhere:
        click.echo(f"claude-proxy: {_OTHER_LIST}", err=True)


def _show_of(*, denied: bool, failed: bool, allowed: bool) -> Show:
    if denied:
        return Show.DENIED
    if failed:
        return Show.FAILED
    return Show.ALLOWED if allowed else Show.EVERYTHING


def _run_filter(path: Path, name: str) -> RunFilter:
    """Return the filter of a run; "last" is the one that began last."""
    if name != _LAST:
        return RunFilter(name)
    with AuditReader(path) as reader:
        last = reader.last_run()
    if last is None:
        raise ConfigError(
            "there was no run yet",
            where="--run or CLAUDE_PROXY_LOG_RUN",
            fix="leave it out, or start one: claude-proxy run -- COMMAND",
        )
    return RunFilter(last)


def _refuse_contradictions(
    context: click.Context, *, notices: bool, usage: bool, by: str | None
) -> None:
    """Refuse options that do not go together, instead of ignoring one of them."""
    states = [name for name in _OF_STATE if _is_asked(context, name)]
    if len(states) > 1:
        raise ConfigError(
            f"--{states[0]} and --{states[1]} select different attempts",
            where=f"--{states[0]} and --{states[1]}",
            fix="drop one of them; without them all attempts are shown",
        )
    if usage:
        _refuse(context, _NOT_WITH_USAGE, "selects single attempts, and --usage shows sums only")
        if by is not None and _is_asked(context, "by") and by not in tuple(UsageGrouping):
            raise ConfigError(
                f"--usage has no sums by {by}",
                where="--by or CLAUDE_PROXY_LOG_BY",
                fix="use --by day, --by run or --by model, or drop --usage",
            )
        return
    if notices:
        asked = "--kind" if context.params.get("kind") else "--notices"
        _refuse(context, _NOT_WITH_NOTICES, f"selects attempts, and {asked} shows none")
    if by is None or not _is_asked(context, "by"):
        return
    if by not in tuple(Grouping):
        raise ConfigError(
            f"--by {by} needs --usage",
            where="--by or CLAUDE_PROXY_LOG_BY",
            fix=f"run: claude-proxy log --usage --by {by}",
        )
    _refuse(context, _NOT_WITH_BY, "lists single attempts, and --by counts them")


def _refuse(context: click.Context, names: Sequence[str], why: str) -> None:
    for name in names:
        if _is_asked(context, name):
            raise ConfigError(
                f"--{name} {why}",
                where=f"--{name} or CLAUDE_PROXY_LOG_{name.upper()}",
                fix="drop one of them",
            )


def _is_asked(context: click.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    if source is ParameterSource.ENVIRONMENT:
        return name not in _PREFERENCES and bool(context.params.get(name))
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


def _show_tallies(
    path: Path, selection: Selection, per: Grouping, limit: int, *, as_json: bool
) -> None:
    with AuditReader(path) as reader:
        tallies = reader.tallies(selection, per)
    lines_of = tally_table.json_lines_of if as_json else tally_table.lines_of
    if not tallies:
        click.echo("claude-proxy: no matching entries", err=True)
        return
    click.echo("\n".join(lines_of(per, tallies[:limit])))
    if len(tallies) > limit:
        more = f"showing {limit:,} of {len(tallies):,}; -n {len(tallies)} shows all"
        click.echo(f"claude-proxy: {more}", err=True)


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
