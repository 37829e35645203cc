"""Command `grants`: lists what is granted now, for how long, for whom and by whom."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from claude_proxy.audit.sinks import encoded
from claude_proxy.cli import grant_making, grant_options, used_up_grants
from claude_proxy.cli.used_up_grants import UsedUp
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.control import grant_texts, present
from claude_proxy.policy.grants import SECOND_NS, Grant, Moment

EPILOG = """\b
Examples:
  claude-proxy grants
  claude-proxy grants --json
  claude-proxy revoke 3
"""

_HEADING: Final = ("NO", "ALLOWS", "FOR", "LEFT", "MADE", "BY", "REASON")


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@grant_options.statedir_option()
def command(*, as_json: bool, statedir: Path | None) -> None:
    """List the grants in force.

    One that is used up is listed until the tunnel or request that took its last use has ended.
    """
    scope = grant_making.scope_of(statedir, None, None)
    found, now = grant_making.standing(scope), present.now()
    still_open = used_up_grants.find(scope)
    if as_json:
        for grant in found:
            click.echo(encoded(grant_texts.as_json(grant, now)))
        for one in still_open.grants:
            click.echo(encoded(dict(one.told)))
    elif found or still_open.grants:
        click.echo("\n".join(lines_of(found, still_open.grants, now)))
    else:
        click.echo("claude-proxy: no grant is in force", err=True)
    still_open.warn()
    grant_making.note_others(scope)


def lines_of(grants: Sequence[Grant], used: Sequence[UsedUp], now: Moment) -> Iterator[str]:
    """Yield a heading, and a line for each grant."""
    rows = [_HEADING, *(_row(grant, grant_texts.left_of(grant, now)) for grant in grants)]
    rows += [_row(each.grant, each.text) for each in used]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _row(grant: Grant, left: str) -> tuple[str, ...]:
    made = datetime.fromtimestamp(grant.made_ns / SECOND_NS).astimezone()
    return (
        str(grant.number),
        harmless(grant.text),
        harmless(grant.scope),
        left,
        made.strftime("%m-%d %H:%M"),
        harmless(grant.by),
        harmless(grant.reason),
    )
