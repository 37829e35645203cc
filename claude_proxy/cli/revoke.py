"""Command `revoke`: ends grants before their time, and closes what only they allowed."""

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from claude_proxy.cli import grant_making, grant_options, used_up_grants
from claude_proxy.cli.grant_making import Scope
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.policy.grants import End

EPILOG = """\b
Examples:
  claude-proxy grants
  claude-proxy revoke 3
  claude-proxy revoke 4 5
  claude-proxy revoke --all
"""


def _numbers(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    try:
        scope = grant_making.scope_of(context.params.get("statedir"), None, None)
        known = grant_making.standing(scope)
        known += [each.grant for each in used_up_grants.find(scope).grants]
    except (ClaudeProxyError, OSError):
        return []
    found = [(str(grant.number), grant.text) for grant in known]
    return [CompletionItem(number, help=text) for number, text in found if number.startswith(begun)]


@click.command(epilog=EPILOG)
@click.argument(
    "numbers", nargs=-1, type=click.IntRange(min=1), metavar="NUMBER...", shell_complete=_numbers
)
@click.option("--all", "every", is_flag=True, help="Revoke every grant.")
@grant_options.statedir_option()
def command(*, numbers: tuple[int, ...], every: bool, statedir: Path | None) -> int:
    """Revoke grants: what only they allowed is closed at once."""
    if every == bool(numbers):
        raise click.UsageError("name the numbers of grants, or --all: see `claude-proxy grants`")
    scope = grant_making.scope_of(statedir, None, None)
    wanted = _all(scope) if every else list(numbers)
    if not wanted:
        click.echo("No grant is in force.")
        grant_making.note_others(scope)
        return 0
    ended = grant_making.end(scope, wanted, End.REVOKED)
    for grant in ended:
        text, whom = harmless(grant.text), harmless(grant.whom)
        click.echo(f"Revoked grant {grant.number}: {text}, {whom}.")
    done = {grant.number for grant in ended}
    missing = [str(number) for number in dict.fromkeys(wanted) if number not in done]
    code = 0
    if ended:
        code = grant_making.confirm(scope, lambda _: True, done.isdisjoint)
    if missing:
        is_one = len(missing) == 1
        raise ClaudeProxyError(
            f"no {'grant' if is_one else 'grants'} {', '.join(missing)} in force",
            where=str(scope.statedir),
            fix="see `claude-proxy grants`",
        )
    return code


def _all(scope: Scope) -> list[int]:
    """Return the numbers of what is in force, and of what is used up and still open."""
    there = [grant.number for grant in grant_making.standing(scope)]
    return [*there, *used_up_grants.numbers(scope)]
