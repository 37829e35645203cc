"""Command `lint`: rules that are unused, wider than used, shadowed, or lead to shared places.

Law kept: nothing is changed, and no secret is read. What was used is what the audit log holds.
"""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from claude_proxy.audit.database import database_in
from claude_proxy.audit.queries import AuditReader
from claude_proxy.audit.recorded_attempts import RowKey, counted_rows
from claude_proxy.cli import list_edit, options, paths
from claude_proxy.cli.shared_options import (
    allowlist_option,
    confdir_option,
    policy_option,
    statedir_option,
)
from claude_proxy.cli.short_figures import local_time
from claude_proxy.cli.since import Since
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.policy.lint import Finding, FindingKind, findings
from claude_proxy.policy.recorded_attempt import RecordedAttempt

EPILOG: Final = """\b
Examples:
  claude-proxy lint
  claude-proxy lint --since 7d --policy strict
  claude-proxy lint --only shadowed --only shared-place      needs no audit log
  claude-proxy lint --json | jq -r '.findings[].where'
Kinds: unused (nothing was asked for that the rule allows), wider-than-used (hosts, methods or ports
of it were not used), shadowed (the list allows the same without it), shared-place (a wildcard leads
to where anybody can store or receive data).
\b
Exit codes: 0 nothing found, 1 something found, 2 the policy is not valid.
"""

_DAYS_NS: Final = 24 * 3600 * 1_000_000_000
_DEFAULT_DAYS: Final = 30
_FROM_RECORD: Final = frozenset({FindingKind.UNUSED, FindingKind.WIDER})


@click.command(epilog=EPILOG)
@click.option(
    "--since",
    type=Since(),
    metavar="WHEN",
    help="Count what was used since an age (7d), today, yesterday or a date.  [default: 30d]",
)
@click.option(
    "--only",
    "kinds",
    type=click.Choice([kind.value for kind in FindingKind]),
    multiple=True,
    help="Look for this kind alone; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@allowlist_option("The list to look at.  [default: allowlist.yaml in --confdir]")
@policy_option("Look at this policy instead of the allowlist.")
@statedir_option("Directory of the audit log.")
@confdir_option("the allowlist")
@click.pass_context
def command(
    context: click.Context,
    /,
    *,
    since: int | None,
    kinds: tuple[str, ...],
    as_json: bool,
    confdir: Path | None,
    **named: Any,
) -> int:
    """Find rules that are unused, wider than used, shadowed, or lead to shared places."""
    given = options.in_force(context, named)
    looked_at = list_edit.list_of(given, confdir or paths.default_confdir())
    policy = looked_at.load(looked_at.text())
    wanted = {FindingKind(kind) for kind in kinds} or set(FindingKind)
    start = time.time_ns() - _DEFAULT_DAYS * _DAYS_NS if since is None else since
    attempts, first = None, None
    if wanted & _FROM_RECORD:
        path = database_in(given["statedir"] or paths.default_statedir())
        attempts, first = _recorded(path, start)
    found = [each for each in findings(policy, attempts) if each.kind in wanted]
    note = _note(first, start) if wanted & _FROM_RECORD else None
    name = str(looked_at.path)
    if as_json:
        click.echo(json.dumps(_facts(name, found, note), indent=2))
    else:
        for line in _lines(name, found):
            click.echo(line)
        if note is not None:
            click.echo(f"note: {note}", err=True)
    return 1 if found else 0


def _recorded(
    path: Path, since_ns: int
) -> tuple[list[tuple[RecordedAttempt, int]] | None, int | None]:
    """Return what was asked for and how often, and when the log begins; None without a log."""
    if not path.exists():
        return None, None
    counts: dict[RecordedAttempt, int] = {}
    with AuditReader(path) as reader:
        first = reader.first_time()
        for key, times in counted_rows(reader, since_ns=since_ns):
            attempt = RowKey(*key).attempt()
            if attempt is not None:
                counts[attempt] = counts.get(attempt, 0) + times
    return (None if first is None else list(counts.items())), first


def _note(first: int | None, start: int) -> str | None:
    """Return what limits the findings about use."""
    if first is None:
        return "nothing is recorded yet, so nothing is said about what was used"
    if first > start:
        return f"the audit log begins on {local_time(first)}, so only what came later is counted"
    return None


def _lines(name: str, found: Sequence[Finding]) -> Iterator[str]:
    for each in found:
        yield f"{harmless(each.where)}: {each.kind}: {harmless(each.what)}"
        yield f"  fix: {each.fix}"
    count = f"{len(found)} finding{'' if len(found) == 1 else 's'}"
    yield f"{harmless(name)}: {count if found else 'nothing found'}"


def _facts(name: str, found: Sequence[Finding], note: str | None) -> dict[str, Any]:
    return {
        "list": name,
        "note": note,
        "findings": [
            {
                "kind": each.kind.value,
                "where": each.where,
                "rule": str(each.rule),
                "preset": each.preset,
                "what": each.what,
                "fix": each.fix,
            }
            for each in found
        ],
    }
