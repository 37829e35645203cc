"""Shows the policies and the groups of the groups files: all by name, or what one of them says."""

import json
from pathlib import Path
from typing import Any

import click

from claude_proxy.cli import completers, paths
from claude_proxy.cli.shared_options import confdir_option, groups_option
from claude_proxy.config import policy_files
from claude_proxy.config.allowlist.writer import facts_of, facts_of_narrowing
from claude_proxy.config.groups.listing import lines_of_groups, lines_of_policies, lines_of_policy
from claude_proxy.config.groups.loader import Groups, chosen
from claude_proxy.config.groups.reader import PolicyEntry
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ConfigError

EXAMPLES = """\b
Examples:
  claude-proxy policies                 every policy
  claude-proxy policies claude          what one allows and denies
  claude-proxy policies --list-groups   every group
"""


@click.command(epilog=EXAMPLES)
@click.argument("name", required=False, shell_complete=completers.policies)
@click.option("--list-groups", "show_groups", is_flag=True, help="List the groups.")
@groups_option("A groups file, on top of groups.toml in --confdir.")
@confdir_option("groups.toml")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    name: str | None,
    *,
    show_groups: bool,
    groups_file: Path | None,
    confdir: Path | None,
    as_json: bool,
) -> int:
    """List the policies and groups, or print one."""
    if show_groups and name is not None:
        fix = "drop the name, or --list-groups"
        raise ConfigError("a policy is named beside --list-groups", where=name, fix=fix)
    groups = groups_of(confdir, groups_file)
    facts: object
    if name is not None:
        lines, facts = lines_of_policy(groups, name), _facts_of_policy(groups, name)
    elif show_groups:
        lines, facts = lines_of_groups(groups), _facts_of_groups(groups)
    else:
        lines, facts = lines_of_policies(groups), _facts_of_policies(groups)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        for line in lines:
            click.echo(line)
    return 0


def groups_of(confdir: Path | None, groups_file: Path | None) -> Groups:
    """Return what all groups files define together."""
    where = confdir or paths.default_confdir()
    return policy_files.load_groups(
        Settings(where / paths.ALLOWLIST, where, where, groups=groups_file or paths.seeds_groups())
    )


def _facts_of_policy(groups: Groups, name: str) -> dict[str, Any]:
    policy = chosen(groups, name).policy
    facts = _facts_of_entry(groups.entry(name))
    if policy is not None:
        facts["allow"] = [facts_of(rule) for rule in policy.allow]
        facts["deny"] = [facts_of(rule) for rule in policy.deny]
        facts["anthropic"] = [facts_of_narrowing(each) for each in policy.restrictions]
    return facts


def _facts_of_policies(groups: Groups) -> list[dict[str, Any]]:
    return [_facts_of_entry(groups.policies[name]) for name in sorted(groups.policies)]


def _facts_of_entry(entry: PolicyEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "description": entry.description,
        "network": entry.network,
        "default": entry.default,
        "filesystem": entry.filesystem,
        "allow_groups": [name.text for name in entry.allow_groups],
        "deny_groups": [name.text for name in entry.deny_groups],
        "source": str(entry.source),
    }


def _facts_of_groups(groups: Groups) -> list[dict[str, Any]]:
    return [
        {
            "name": group.name,
            "description": group.description,
            "hosts": [str(host.pattern) for host in group.hosts],
            "hosts_deny": [str(host.pattern) for host in group.hosts_deny],
            "groups": [name.text for name in group.groups],
            "source": str(group.source),
        }
        for _, group in sorted(groups.groups.items())
    ]
