"""The command `config`: shows what is in force and where it comes from, and checks every file."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from claude_proxy.audit.escape import escape_text
from claude_proxy.cli import completers, effective_values, paths
from claude_proxy.cli.config_check import CheckedFile, check_files
from claude_proxy.cli.effective_values import Effective, EffectiveValue
from claude_proxy.cli.groups import Group
from claude_proxy.cli.shared_options import confdir_option
from claude_proxy.config.config_yaml import GATEWAY_NAME, NAME, ConfigFile
from claude_proxy.config.option_table import Subcommand
from claude_proxy.errors import ConfigErrors

EXAMPLES = """\b
Examples:
  claude-proxy config show                        every setting, and what set it
  claude-proxy config show run                    those of `run`
  claude-proxy config show serve -- --port 9052   as they would be with these options
  claude-proxy config check                       every file of the configuration
  claude-proxy config check --json
  claude-proxy schema config                      the JSON Schema of config.yaml, for editors

Precedence: option, CLAUDE_PROXY_* variable, config.yaml, default.
"""


_SUBCOMMAND = click.Choice([one.value for one in Subcommand])


@click.group(cls=Group, name="config", epilog=EXAMPLES)
def command() -> None:
    """Show the settings in force, or check the configuration files."""


@command.command(epilog=EXAMPLES)
@click.argument(
    "subcommand",
    required=False,
    type=click.Choice([one.value for one in Subcommand]),
    metavar="[COMMAND]",
)
@click.argument(
    "words",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[-- OPTIONS]",
    shell_complete=completers.options_of_subcommand,
)
@click.option("--set", "only_set", is_flag=True, help="Leave out what has its default value.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(*, subcommand: str | None, words: tuple[str, ...], only_set: bool, as_json: bool) -> None:
    """Print the value of each setting and what set it: option, variable, config.yaml or default.

    COMMAND is serve, gateway or run; OPTIONS are options of that command. Secrets are never shown.
    """
    chosen = [Subcommand(subcommand)] if subcommand else [*Subcommand]
    found = [effective_values.effective_of(command, words) for command in chosen]
    config = found[0].config
    values = [value for value in _merged(found) if not (only_set and _is_default(value))]
    if as_json:
        facts = {"config": str(config.path), "exists": config.exists, **_tables(config)}
        facts["values"] = [asdict(value) for value in values]
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo("\n".join(_lines(config, values)))


def _merged(found: Iterable[Effective]) -> Iterator[EffectiveValue]:
    """Yield the values of several commands, each once."""
    values = (value for effective in found for value in effective.values)
    yield from dict.fromkeys(values)


def _is_default(value: EffectiveValue) -> bool:
    return value.origin == effective_values.DEFAULT_ORIGIN


def _tables(config: ConfigFile) -> dict[str, dict[str, str]]:
    return {
        "providers": {name: str(one.endpoint) for name, one in config.providers.items()},
        "projects": {str(path): policy for path, policy in config.projects.items()},
    }


def _lines(config: ConfigFile, values: Sequence[EffectiveValue]) -> Iterator[str]:
    yield f"{config.path}{'' if config.exists else ' (there is none)'}"
    older = config.path.with_name(GATEWAY_NAME)
    if any(older.name in value.origin for value in values):
        yield f"{older} (older; its keys can move to {NAME}, below gateway:)"
    yield ""
    beside = f"{config.path.parent}/"
    rows = [(value.key, value.value, value.origin.removeprefix(beside)) for value in values]
    for table, entries in _tables(config).items():
        rows += [(f"{table}.{name}", text, NAME) for name, text in entries.items()]
    widths = [max((len(row[at]) for row in rows), default=0) for at in (0, 1)]
    for key, value, origin in rows:
        cells = escape_text(key).ljust(widths[0]), escape_text(value).ljust(min(widths[1], 48))
        yield "  ".join((*cells, escape_text(origin))).rstrip()


@command.command(epilog=EXAMPLES)
@confdir_option("the configuration", reads_config=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(*, confdir: Path | None, as_json: bool) -> int:
    """Check every configuration file: config.yaml, policies, presets, profiles.

    All mistakes are printed, each with its place and fix; the exit code is 2 if there is one.
    """
    found = check_files(confdir or paths.default_confdir())
    wrong = [problem for file in found for problem in file.problems]
    if as_json:
        files = [_facts(file) for file in found]
        click.echo(json.dumps({"files": files, "exit": 2 if wrong else 0}, indent=2))
        return 2 if wrong else 0
    for file in found:
        click.echo(f"{'error' if file.problems else 'ok':7}{escape_text(file.name)}")
    if wrong:
        raise ConfigErrors(wrong)
    return 0


def _facts(file: CheckedFile) -> dict[str, object]:
    problems = [{"what": one.what, "where": one.where, "fix": one.fix} for one in file.problems]
    return {"file": file.name, "ok": not problems, "problems": problems}
