"""The part of `allow` that grants hosts for a while, for a number of uses or to a run.

Laws kept: no list is edited; each entry is one grant, which allows what was named and no more.
"""

from collections.abc import Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from claude_proxy.cli import grant_making, grant_openings, list_edit
from claude_proxy.cli.grant_making import Scope
from claude_proxy.cli.list_edit import EditedList
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.edit import Entry, PresetEntry
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.errors import ConfigError
from claude_proxy.policy.rules import Rule
from claude_proxy.policy.shown_rules import shown

_FILE_OPTIONS = {"allowlist_file": "--allowlist", "policy_name": "--policy"}


def refuse_file_options(context: click.Context, *, remove: bool) -> None:
    """Raise ConfigError for options that are about a file, which a grant does not edit."""
    given = [
        option
        for name, option in _FILE_OPTIONS.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if remove:
        raise ConfigError(
            "a grant is taken back by its number",
            where="--remove",
            fix="see `claude-proxy grants`, then `claude-proxy revoke NUMBER`",
        )
    if given:
        raise ConfigError(
            "a grant is for what runs, and edits no file",
            where=", ".join(given),
            fix=f"drop {given[0]}, or leave out --for, --uses, --run and --project",
        )


def grant(
    entries: Sequence[Entry],
    edited: EditedList,
    *,
    lasts_ns: int | None,
    uses: int | None,
    run_name: str | None,
    project: Path | None,
    reason: str,
    statedir: Path | None,
    dry_run: bool,
) -> int:
    """Make one grant of each entry; return the exit code."""
    if lasts_ns is None and uses is None and run_name is None:
        given = "--reason" if project is None else "--project"
        raise ConfigError(
            "a grant needs an end",
            where=given,
            fix="add --for 1h or --uses 5, or name one run with --run",
        )
    rules = [_rules_of(entry, edited) for entry in entries]
    scope = grant_making.scope_of(statedir, run_name, project)
    if dry_run:
        for each in rules:
            _say_what_opens(scope, each)
            click.echo(f"Would grant {harmless(', '.join(map(shown, each)))}; nothing was written.")
        return 0
    for each in rules:
        _say_what_opens(scope, each)  # before it does
    made = [
        grant_making.make(scope, each, lasts_ns=lasts_ns, uses=uses, reason=reason)
        for each in rules
    ]
    for one in made:
        click.echo(grant_making.said_of(one))
    numbers = {one.number for one in made}
    code = grant_making.confirm(scope, grant_making.is_concerned(scope), numbers.issubset)
    listed = " ".join(str(one.number) for one in made)
    click.echo(f"End it sooner with: claude-proxy revoke {listed}")
    return code


def _say_what_opens(scope: Scope, rules: Sequence[Rule]) -> None:
    concerned = filter(grant_making.is_concerned(scope), scope.proxies)
    for line in grant_openings.lines_for_proxies(concerned, rules):
        click.echo(line)


def _rules_of(entry: Entry, edited: EditedList) -> tuple[Rule, ...]:
    if not isinstance(entry, PresetEntry):
        return (list_edit.rule_of(entry),)
    preset = loader.preset_policy(entry.name, edited.library)
    if preset.deny or preset.restrictions or preset.credentials:
        raise ConfigError(
            f"the preset {entry.name} does more than allow hosts, which a grant cannot",
            where=f"--preset {entry.name}",
            fix="add it to the list: leave out --for, --uses, --run and --project",
        )
    return preset.allow
