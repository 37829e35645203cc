"""Command `diff`: what one policy allows and another does not, and the other way round.

Law kept: exact. "opens nothing" is said only where that is proven: the policies are compared as
sets, not as texts. No packet is sent, no secret is read.
"""

import json
from pathlib import Path

import click

from claude_proxy.cli import completers, paths
from claude_proxy.cli.difference_lines import facts_of, lines_of
from claude_proxy.cli.policy_reading import STANDARD_INPUT, NamedPolicy, policy_of
from claude_proxy.cli.shared_options import confdir_option
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.policy.difference import Difference, difference

EXAMPLES = """\b
Examples:
  claude-proxy diff allowlist new.yaml          from the list in force to a file
  claude-proxy diff shipped allowlist           what you changed in the shipped list
  claude-proxy diff claude shell                two policies by name
  claude-proxy diff running new.yaml            from what the running proxy judges by
  claude-proxy diff running:web running:build   of two runs
  git show HEAD:policy.yaml | claude-proxy diff - policy.yaml
  claude-proxy diff --json old.yaml new.yaml | jq -r '.opens[].text'
OLD and NEW: a policy's name, a file (with a / or .yaml), `allowlist` for the list in force,
`shipped` for the one that comes with claude-proxy, `running` for what a running proxy judges by
(`running:NAME` where several run; without its grants), or - for standard input.
\b
Exit codes: 0 NEW opens nothing, 1 it opens something, 2 a policy is not valid.
"""

_UNFILTERED = "everything: the network is open, and nothing is filtered or recorded"


@click.command(epilog=EXAMPLES)
@click.argument("old", shell_complete=completers.policies_and_files)
@click.argument("new", shell_complete=completers.policies_and_files)
@confdir_option("the directory policies/")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, old: str, new: str, confdir: Path | None, as_json: bool) -> int:
    """Show what policy NEW allows and OLD does not, and the other way round.

    Each line is a rule: requests by method and path, tunnels, addresses that names may lead to,
    logins, and what the Messages API may be asked for.
    """
    if old == new == STANDARD_INPUT:
        raise click.UsageError("only one of the two can be standard input")
    place = confdir or paths.default_confdir()
    before, after = policy_of(old, place, "OLD"), policy_of(new, place, "NEW")
    found = _difference(before, after)
    unfiltered = after.is_unfiltered and not before.is_unfiltered
    filtered = before.is_unfiltered and not after.is_unfiltered
    if as_json:
        facts = {"old": before.name, "new": after.name, **facts_of(found)}
        facts["opens_everything"], facts["closes_everything"] = unfiltered, filtered
        click.echo(json.dumps(facts, indent=2))
    else:
        click.echo(f"{harmless(before.name)} -> {harmless(after.name)}")
        lines = list(lines_of(found))
        if unfiltered:
            lines = ["opens:", f"  {_UNFILTERED}"]
        if filtered:
            lines += ["closes:", f"  {_UNFILTERED}"]
        for line in lines:
            click.echo(line)
    return 1 if found.opens or found.asks or unfiltered else 0


def _difference(before: NamedPolicy, after: NamedPolicy) -> Difference:
    if before.is_unfiltered or after.is_unfiltered:
        return Difference()
    return difference(before.policy, after.policy)
