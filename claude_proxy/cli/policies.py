"""Command `policies`: lists the policies, built-in and own, or shows the rules of one."""

import json
from pathlib import Path
from typing import Any

import click

from claude_proxy.cli import completers, paths
from claude_proxy.cli.shared_options import confdir_option
from claude_proxy.config import policy_files
from claude_proxy.config.allowlist.model import PolicyFile
from claude_proxy.config.allowlist.writer import facts_of, facts_of_narrowing
from claude_proxy.config.owner_files import OwnerFiles
from claude_proxy.config.policy_listing import lines_of_policies, lines_of_policy

EXAMPLES = """\b
Examples:
  claude-proxy policies                 every policy
  claude-proxy policies claude          what one allows and denies
A policy of your own is policies/NAME.yaml in --confdir; it replaces a built-in one of its name.
"""


@click.command(epilog=EXAMPLES)
@click.argument("name", required=False, shell_complete=completers.policies)
@confdir_option("the directory policies/")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, *, confdir: Path | None, as_json: bool) -> int:
    """List the policies, or print one."""
    facts: object
    if name is not None:
        file = policy_files.read_named(_files(confdir), name, where="claude-proxy policies")
        lines, facts = lines_of_policy(name, file), _facts_of_rules(name, file)
    else:
        found = all_policies(confdir)
        lines, facts = lines_of_policies(found), [_facts_of(*each) for each in found]
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        for line in lines:
            click.echo(line)
    return 0


def all_policies(confdir: Path | None) -> list[tuple[str, PolicyFile]]:
    """Return every policy by its name; ConfigError if one is wrong."""
    files = _files(confdir)
    names = policy_files.policy_names(files)
    return [(name, policy_files.read_named(files, name)) for name in names]


def _files(confdir: Path | None) -> OwnerFiles:
    return OwnerFiles(confdir or paths.default_confdir())


def _facts_of(name: str, file: PolicyFile) -> dict[str, Any]:
    return {
        "name": name,
        "description": file.description,
        "network": file.network,
        "default": file.default,
        "profile": file.profile,
        "source": file.source.file,
    }


def _facts_of_rules(name: str, file: PolicyFile) -> dict[str, Any]:
    return {
        **_facts_of(name, file),
        "allow": [facts_of(rule) for rule in file.policy.allow],
        "deny": [facts_of(rule) for rule in file.policy.deny],
        "anthropic": [facts_of_narrowing(each) for each in file.policy.restrictions],
    }
