"""Command `close`: ends what `open` began, before its time."""

from pathlib import Path

import click

from claude_proxy.cli import grant_making, grant_options, used_up_grants
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.policy.grants import End, GrantKind

EPILOG = """\b
Examples:
  claude-proxy close
  claude-proxy close --run claude-x7k2
"""


@click.command(epilog=EPILOG)
@grant_options.run_option("Close what was opened for this run or container alone.")
@grant_options.project_option("Close what was opened for the runs in this directory alone.")
@grant_options.statedir_option()
def command(*, run_name: str | None, project: Path | None, statedir: Path | None) -> int:
    """Close what was opened: the lists alone decide again."""
    scope = grant_making.scope_of(statedir, run_name, project)
    opened = [
        grant
        for grant in grant_making.standing(scope)
        if grant.kind is GrantKind.OPEN
        and (scope.run is None or (grant.run and grant.run.folder == scope.run.folder))
        and (project is None or grant.project == str(project))
    ]
    ended = grant_making.end(scope, [grant.number for grant in opened], End.CLOSED)
    if not ended:
        click.echo("Nothing is open.")
        if grant_making.standing(scope) or used_up_grants.find(scope).grants:
            click.echo("That is about `claude-proxy open`; for other grants see:")
            click.echo("  claude-proxy grants")
        return 0
    for grant in ended:
        click.echo(f"Closed grant {grant.number}: {grant.text}, {harmless(grant.whom)}.")
    done = {grant.number for grant in ended}
    return grant_making.confirm(scope, lambda _: True, done.isdisjoint)
