"""`claude-proxy replay`: which recorded requests a policy would decide differently."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from claude_proxy.audit.database import database_in
from claude_proxy.audit.escape import escape_field, escape_text
from claude_proxy.audit.queries import AuditReader
from claude_proxy.audit.recorded_attempts import recorded_rows
from claude_proxy.audit.replay import Change, Changed, Replay
from claude_proxy.cli import completers, list_edit, options, paths
from claude_proxy.cli.recorded_run import run_filter
from claude_proxy.cli.shared_options import (
    allowlist_option,
    confdir_option,
    policy_option,
    statedir_option,
)
from claude_proxy.cli.since import Since
from claude_proxy.config.strict_yaml.nodes import harmless

EPILOG: Final = """\b
Examples:
  claude-proxy replay --policy strict --since 7d
  claude-proxy replay --allowlist new.yaml --run last
  claude-proxy replay --policy strict --json | jq .denied

What a decision needs and the log does not hold (header fields, bodies, logins) is not judged again.
What was asked about and would be asked about again is no difference, whatever was answered.
Exit code: 0 if everything would be decided as it was, 1 if something would not, 2 for an error in
the policy.
"""

_CHANGES: Final = {
    Change.DENIED: "would be denied",
    Change.ALLOWED: "would be allowed",
    Change.ASKED: "would be asked about",
    Change.OTHER_REASON: "would be denied for another reason",
}
_NO_RUN: Final = "no run"
_DIFFERENT: Final = 1


@click.command(epilog=EPILOG)
@click.option(
    "--run",
    metavar="NAME",
    shell_complete=completers.recorded_runs,
    help="Replay one `claude-proxy run`; last means the newest.",
)
@click.option(
    "--since",
    type=Since(),
    metavar="WHEN",
    help="Replay from an age (90s, 30m, 2h, 7d), today, yesterday, or a date and time on.",
)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="COUNT",
    help="Show at most this many requests of a run, and so many runs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@allowlist_option("The list to judge by.  [default: allowlist.yaml in --confdir]")
@policy_option("Judge by this policy instead of the allowlist.")
@statedir_option("Directory of the audit log.")
@confdir_option("the allowlist")
@click.pass_context
def command(
    context: click.Context,
    /,
    run: str | None,
    since: int | None,
    *,
    limit: int,
    as_json: bool,
    confdir: Path | None,
    **named: Any,
) -> int:
    """Show which recorded requests a policy would decide differently."""
    given = options.in_force(context, named)
    judged_by = list_edit.list_of(given, confdir or paths.default_confdir())
    replay = Replay(judged_by.load(judged_by.text()))
    path = database_in(given["statedir"] or paths.default_statedir())
    of_run = None if run is None else run_filter(path, run)
    # A million rows: what is made of them stays, and the collector would search it all the time.
    gc.disable()
    try:
        with AuditReader(path) as reader:
            replay.judge(recorded_rows(reader, since_ns=since or 0, run=of_run))
    finally:
        gc.enable()
    if as_json:
        click.echo(json.dumps(_facts_of(replay, limit), indent=2))
    else:
        click.echo("\n".join(_lines_of(replay, harmless(str(judged_by.path)), limit)))
    return _DIFFERENT if replay.runs() else 0


def _lines_of(replay: Replay, name: str, limit: int) -> Iterator[str]:
    runs = replay.runs()
    different = sum(sum(replay.counts(run).values()) for run in runs)
    yield (
        f"{_attempts(replay.attempts)} recorded; by {name}, "
        f"{different:,} would be decided differently."
    )
    if unjudged := sum(replay.not_judged.values()):
        reasons = ", ".join(map(escape_field, replay.not_judged))
        yield f"{unjudged:,} cannot be judged again, as what decided is not recorded: {reasons}"
    for run in runs[:limit]:
        yield ""
        yield from _lines_of_run(replay, run, limit)
    if len(runs) > limit:
        yield ""
        more = "1 more run" if len(runs) == limit + 1 else f"{len(runs) - limit:,} more runs"
        yield f"and {more}; -n {len(runs)} shows all"


def _attempts(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count:,} attempts"


def _lines_of_run(replay: Replay, run: str | None, limit: int) -> Iterator[str]:
    counts = [
        f"{count:,} {_CHANGES[change]}"
        for change in Change
        if (count := replay.counts(run)[change])
    ]
    name = _NO_RUN if run is None else f"run {escape_field(run)}"
    yield f"{name}: {', '.join(counts)}"
    changed = replay.changed(run, limit + 1)
    for each in changed[:limit]:
        by = "" if each.rule is None else f", by {escape_text(each.rule)}"
        yield (
            f"  {each.times:,}x {escape_text(each.subject)}: was {escape_field(each.was)}, "
            f"{_CHANGES[each.change]} ({each.now}{by})"
        )
    if len(changed) > limit:
        yield f"  and more; -n {10 * limit} shows up to {10 * limit} of them"


def _facts_of(replay: Replay, limit: int) -> dict[str, Any]:
    totals = {str(change): 0 for change in Change}
    for run in replay.runs():
        for change, count in replay.counts(run).items():
            totals[change] += count
    return {
        "attempts": replay.attempts,
        "not_judged": dict(replay.not_judged),
        **{change.replace("-", "_"): count for change, count in totals.items()},
        "runs": [
            {
                "run": run,
                **{change.replace("-", "_"): replay.counts(run)[change] for change in Change},
                "requests": [_changed_facts(each) for each in replay.changed(run, limit)],
            }
            for run in replay.runs()
        ],
    }


def _changed_facts(changed: Changed) -> dict[str, Any]:
    facts = changed._asdict()
    del facts["run"]
    return facts
