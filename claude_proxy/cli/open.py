"""Command `open`: allows every public host for a time, which ends by itself."""

from pathlib import Path

import click

from claude_proxy.cli import grant_making, grant_options
from claude_proxy.errors import ConfigError
from claude_proxy.policy.grants import LONGEST_OPEN_NS, GrantKind, everything

EPILOG = """\b
Examples:
  claude-proxy open --for 10m
  claude-proxy open --for 1h --run claude-x7k2 --reason 'find out what the build needs'
  claude-proxy open --for 30m --project .
  claude-proxy close
"""


@click.command(epilog=EPILOG)
@grant_options.for_option("How long, at most a day, such as 10m or 1h.", required=True)
@grant_options.run_option("Open it for this run or container alone.")
@grant_options.project_option("Open it for the runs in this directory.")
@grant_options.reason_option()
@grant_options.statedir_option()
def command(
    *,
    lasts_ns: int,
    run_name: str | None,
    project: Path | None,
    reason: str,
    statedir: Path | None,
) -> int:
    """Allow every public host for a time.

    Denials, credentials, the restrictions of the Messages API and agreement stay in force, and
    private addresses stay closed. A line on each terminal concerned says so while it lasts.
    """
    if lasts_ns > LONGEST_OPEN_NS:
        raise ConfigError(
            "everything can be open for a day at most",
            where="--for",
            fix="write 24h or less, and open it again if need be",
        )
    scope = grant_making.scope_of(statedir, run_name, project)
    made = grant_making.make(
        scope, [everything()], kind=GrantKind.OPEN, lasts_ns=lasts_ns, uses=None, reason=reason
    )
    click.echo(grant_making.said_of(made))
    code = grant_making.confirm(scope, grant_making.is_concerned(scope), {made.number}.issubset)
    click.echo("Denials, credentials and private addresses stay as they are. Lock it again with:")
    click.echo("  claude-proxy close")
    return code
