"""Writes the reference pages, docs/reference/*.md, from the program's own tables.

`python -m tools.reference` writes them. What a page says is in one place: the command line, the
presets, the tables of fields, and the introductions and reasons in pages/ beside this module.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click
import yaml
from click.testing import CliRunner

from claude_proxy.cli.main import cli
from claude_proxy.cli.options import TableOption
from claude_proxy.config import config_reference
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist import reference as policy_reference
from claude_proxy.config.option_table import Subcommand
from claude_proxy.policy.reason import Reason
from claude_proxy.sandbox.plan.obeyed_files import TOOLS

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "reference"
INTRODUCTIONS = Path(__file__).with_name("pages")
REASONS = INTRODUCTIONS / "reasons.yaml"

_GENERATED = "<!-- Written by `make reference`. Do not edit. -->\n\n"


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    context = click.Context(cli, info_name="claude-proxy", **cli.context_settings)
    parts = {
        "commands.md": _command(cli, context),
        "policy.md": policy_reference.page(),
        "config.md": _lines(config_reference.keys_page()),
        "presets.md": _presets(),
        "reasons.md": _reasons(),
        "obeyed-files.md": _obeyed_files(),
    }
    return {
        name: f"{_GENERATED}{(INTRODUCTIONS / name).read_text('utf-8')}\n{''.join(part).rstrip()}\n"
        for name, part in parts.items()
    }


def _command(command: click.Command, context: click.Context, level: int = 2) -> Iterator[str]:
    yield f"{'#' * level} {context.command_path}\n\n"
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"```text\n{usage}\n```\n\n"
    if command.help:
        yield f"{_in_code(_unwrapped(inspect.cleandoc(command.help)))}\n\n"
    yield from _options(command, context)
    if command.epilog:
        yield f"```text\n{_unwrapped(command.epilog)}\n```\n\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            part = command.get_command(context, name)
            if part is not None and not part.hidden:
                inner = click.Context(part, parent=context, info_name=name)
                yield from _command(part, inner, min(level + (command is not cli), 3))


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    of_table = context.parent is not None and context.info_name in set(Subcommand)
    if of_table:
        yield from _lines(config_reference.options_page(Subcommand(context.info_name)))
    options = [
        option
        for option in command.params
        if isinstance(option, click.Option)
        and not option.hidden
        and not (of_table and isinstance(option, TableOption))
    ]
    if options and of_table:
        yield "### Other options\n\n"
    if options:
        yield "| option | variable | default | meaning |\n| --- | --- | --- | --- |\n"
        yield from map(_row, options)
        yield "\n"


def _row(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    variable = f"`{option.envvar}`" if isinstance(option.envvar, str) else ""
    meaning, _, default = (option.help or "").removesuffix("]").partition("  [default: ")
    default = _cell(default) or _default(option)
    return f"| {names} | {variable} | {default} | {_cell(meaning)} |\n"


def _default(option: click.Option) -> str:
    if isinstance(option.show_default, str):
        return _cell(option.show_default)
    value = option.default
    if not isinstance(value, str | int | float) or isinstance(value, bool) or value == "":
        return ""
    return f"`{value}`"


def _unwrapped(text: str) -> str:
    """Return a help text without click's mark for a paragraph that it must not wrap."""
    return text.replace("\b\n", "").strip()


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield f"{_in_code(line)}\n"


def _cell(text: str) -> str:
    return _in_code(" ".join(text.split())).replace("|", "\\|")


def _in_code(text: str) -> str:
    """Set options, wildcards and paths as code, so that Markdown leaves them alone."""
    parts = re.split(r"(`[^`]*`)", text)
    for at in range(0, len(parts), 2):
        plain = r"(?<![\w/`-])(--[a-z][a-z-]+|~/\S*[\w/]|\*\.[\w.]+|https?://[^\s|,]+|/?\*\*?(?= ))"
        parts[at] = re.sub(plain, r"`\1`", parts[at])
    return "".join(parts)


def _reasons() -> Iterator[str]:
    for reason, entry in yaml.safe_load(REASONS.read_text("utf-8")).items():
        status = entry.get("status", 403)
        if reason == Reason.RULE_MATCHED:
            status = ""
        else:
            status = f" Status {status}." if status else " In the audit log only."
        yield f"## {reason}\n\n{entry['means']}{status}\n\n"
        yield f"**What to do.** {entry['do']}\n\n"


def _obeyed_files() -> Iterator[str]:
    yield "| obeyed by | read-only in a project where it exists | named at the end of a run |\n"
    yield "| --- | --- | --- |\n"
    for tool in TOOLS:
        names = (
            ", ".join(f"`{name}`" for name in part) for part in (tool.protected, tool.reported)
        )
        yield f"| [{tool.name}]({tool.source}) | {' | '.join(names)} |\n"


def _presets() -> Iterator[str]:
    yield "| preset | for |\n| --- | --- |\n"
    for preset in loader.presets():
        yield f"| [`{preset.name}`](#{preset.name}) | {_cell(preset.description)} |\n"
    for preset in loader.presets():
        rules = CliRunner().invoke(cli, ["presets", preset.name], catch_exceptions=False).output
        yield f"\n## {preset.name}\n\n{preset.description}.\n\n```text\n{rules}```\n"


def main() -> None:
    """Write the pages."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
