"""Shows the presets: all by name, or what one of them allows."""

import json

import click

from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.writer import (
    entry_of,
    facts_of,
    facts_of_narrowing,
    narrowing_entry_of,
)
from claude_proxy.errors import ConfigError

EXAMPLES = """\b
Examples:
  claude-proxy presets                 every preset
  claude-proxy presets github          what one allows, with what it includes
  claude-proxy presets github --file   its file, with the comments
"""


@click.command(epilog=EXAMPLES)
@click.argument("name", required=False)
@click.option("--file", "as_file", is_flag=True, help="Print the preset's file as it is.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, *, as_file: bool, as_json: bool) -> int:
    """List the presets, or print one."""
    if as_file and (name is None or as_json):
        fix = "name a preset, and leave --json out"
        raise ConfigError("--file prints the file of one preset", where="--file", fix=fix)
    if name is None:
        _print_all(as_json=as_json)
    else:
        _print_one(name, as_file=as_file, as_json=as_json)
    return 0


def _print_all(*, as_json: bool) -> None:
    presets = loader.presets()
    if as_json:
        click.echo(json.dumps([preset._asdict() for preset in presets], indent=2))
        return
    wide = max(len(preset.name) for preset in presets)
    for preset in presets:
        click.echo(f"{preset.name:{wide}}  {preset.rules:3} rules  {preset.description}")


def _print_one(name: str, *, as_file: bool, as_json: bool) -> None:
    try:
        text = loader.preset_text(name)
    except KeyError as error:
        raise loader.unknown_preset(name, where="claude-proxy presets") from error
    policy = loader.preset_policy(name)
    if as_file:
        click.echo(text, nl=False)
    elif as_json:
        facts = {
            "allow": [facts_of(rule) for rule in policy.allow],
            "anthropic": [facts_of_narrowing(narrowing) for narrowing in policy.restrictions],
        }
        click.echo(json.dumps(facts, indent=2))
    else:
        for rule in policy.allow:
            click.echo(f"- {entry_of(rule)}")
        if policy.restrictions:
            click.echo("\nanthropic:")
        for narrowing in policy.restrictions:
            click.echo("\n".join(narrowing_entry_of(narrowing)))
