"""Command `presets`: lists the presets, shipped and own, or shows what one of them allows."""

import json
from pathlib import Path

import click

from claude_proxy.cli import completers, paths
from claude_proxy.cli.shared_options import confdir_option
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.writer import (
    entry_of,
    facts_of,
    facts_of_narrowing,
    narrowing_entry_of,
)
from claude_proxy.config.owner_files import OwnerFiles
from claude_proxy.errors import ConfigError

EXAMPLES = """\b
Examples:
  claude-proxy presets                 every preset
  claude-proxy presets github          what one allows, with what it includes
  claude-proxy presets github --file   its file, with the comments
A preset of your own is presets/NAME.yaml in --confdir; its name must not be that of a shipped one.
"""


@click.command(epilog=EXAMPLES)
@click.argument("name", required=False, shell_complete=completers.presets)
@click.option("--file", "as_file", is_flag=True, help="Print the preset's file as it is.")
@confdir_option("the directory presets/")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, *, as_file: bool, confdir: Path | None, as_json: bool) -> int:
    """List the presets, or print one."""
    if as_file and (name is None or as_json):
        fix = "name a preset, and leave --json out"
        raise ConfigError("--file prints the file of one preset", where="--file", fix=fix)
    library = OwnerFiles(confdir or paths.default_confdir()).library
    if name is None:
        _print_all(library, as_json=as_json)
    else:
        _print_one(name, library, as_file=as_file, as_json=as_json)
    return 0


def _print_all(library: loader.Library, *, as_json: bool) -> None:
    presets = loader.presets(library)
    if as_json:
        click.echo(json.dumps([preset._asdict() for preset in presets], indent=2))
        return
    wide = max(len(preset.name) for preset in presets)
    for preset in presets:
        click.echo(f"{preset.name:{wide}}  {preset.rules:3} rules  {preset.description}")


def _print_one(name: str, library: loader.Library, *, as_file: bool, as_json: bool) -> None:
    try:
        text = library.preset(name)
    except KeyError as error:
        raise loader.unknown_preset(name, where="claude-proxy presets", library=library) from error
    policy = loader.preset_policy(name, library)
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
