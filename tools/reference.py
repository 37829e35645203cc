"""Writes the reference pages, docs/reference/*.md, from the program's own tables.

`python -m tools.reference` writes them. What a page says is in one place: the command line, the
presets, the tables of fields, and reasons.yaml beside this module.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import yaml

from claude_proxy.cli.main import cli
from claude_proxy.config.allowlist import loader
from claude_proxy.policy.reason import Reason

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "reference"
REASONS = Path(__file__).with_name("reasons.yaml")
_GENERATED = "<!-- Written by `make reference`. Do not edit. -->\n\n"


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    texts = {
        "commands.md": "".join(_commands()),
        "reasons.md": "".join(_reasons()),
        "presets.md": "".join(_presets()),
    }
    return {name: _GENERATED + text for name, text in texts.items()}


def _commands() -> Iterator[str]:
    yield "# Commands and options\n\n"
    yield (
        "Precedence: option, `CLAUDE_PROXY_*` variable, `config.yaml`, default. A variable that "
        "is empty counts as not set. A repeatable option takes its values from the variable "
        "separated by spaces.\n\n"
        "Exit codes: 0 done (or allowed), 1 failed (or denied), 2 the arguments or the "
        "configuration are wrong, 70 an error of claude-proxy itself, 74 the output cannot be "
        "written, 130 interrupted. `run` and `relay` return that of their command. "
        "`CLAUDE_PROXY_DEBUG=1` shows the traceback of an internal error. Colour is for "
        "terminals, and `NO_COLOR` is honoured.\n\n"
    )
    yield from _command(cli, click.Context(cli, info_name="claude-proxy"))


def _command(command: click.Command, context: click.Context, level: int = 2) -> Iterator[str]:
    yield f"{'#' * level} {context.command_path}\n\n"
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"```text\n{usage}\n```\n\n"
    yield _prose(command.help)
    yield from _options(command)
    yield _examples(command.epilog)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            part = command.get_command(context, name)
            if part is not None and not part.hidden:
                inner = click.Context(part, parent=context, info_name=name)
                yield from _command(part, inner, min(level + (command is not cli), 3))


def _options(command: click.Command) -> Iterator[str]:
    options = [
        option
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden
    ]
    if not options:
        return
    yield "| option | variable | default | meaning |\n| --- | --- | --- | --- |\n"
    for option in options:
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        variable = f"`{option.envvar}`" if isinstance(option.envvar, str) else ""
        meaning, _, default = (option.help or "").removesuffix("]").partition("  [default: ")
        default = _cell(default) or _default(option)
        yield f"| {names} | {variable} | {default} | {_cell(meaning)} |\n"
    yield "\n"


def _default(option: click.Option) -> str:
    if isinstance(option.show_default, str):
        return _cell(option.show_default)
    value = option.default
    if not isinstance(value, str | int | float) or isinstance(value, bool) or value == "":
        return ""
    return f"`{value}`"


def _prose(text: str | None) -> str:
    return _in_code(text.replace("\b\n", "").strip()) + "\n\n" if text else ""


def _examples(epilog: str | None) -> str:
    if not epilog:
        return ""
    return f"```text\n{epilog.replace('\b\n', '').replace('\b', '').strip()}\n```\n\n"


def _cell(text: str) -> str:
    return _in_code(" ".join(text.split())).replace("|", "\\|")


def _in_code(text: str) -> str:
    """Set options, wildcards and paths as code, so that Markdown leaves them alone."""
    parts = re.split(r"(`[^`]*`)", text)
    for at in range(0, len(parts), 2):
        parts[at] = re.sub(
            r"(?<![\w/`-])(--[a-z][a-z-]+|~/\S*[\w/]|\*\.[\w.]+)", r"`\1`", parts[at]
        )
    return "".join(parts)


def _reasons() -> Iterator[str]:
    yield "# Reasons\n\n"
    yield (
        "Every response of the proxy's own has a stable reason: in its status line, in the header "
        "`X-Claude-Proxy-Reason`, in its body, and in the audit log. "
        "[How a decision is made](../concepts/decisions.md) explains the order of the checks.\n\n"
    )
    for reason, entry in yaml.safe_load(REASONS.read_text("utf-8")).items():
        status = "" if reason == Reason.RULE_MATCHED else f" Status {entry.get('status', 403)}."
        yield f"## {reason}\n\n{entry['means']}{status}\n\n"
        yield f"**What to do.** {entry['do']}\n\n"


def _presets() -> Iterator[str]:
    yield "# Presets\n\n"
    yield (
        "A preset is a named list that an allowlist includes with `- preset: NAME`. "
        "`claude-proxy presets NAME --file` prints one with its sources and reasons. None of "
        "them holds a DNS-over-HTTPS host, or storage where anybody can put files.\n\n"
        "| preset | for |\n| --- | --- |\n"
    )
    for preset in loader.presets():
        yield f"| [`{preset.name}`](#{preset.name}) | {_cell(preset.description)} |\n"
    for preset in loader.presets():
        yield f"\n## {preset.name}\n\n{preset.description}.\n\n```text\n"
        yield from _rules(preset.name)
        yield "```\n"


def _rules(name: str) -> Iterator[str]:
    from click.testing import CliRunner  # noqa: PLC0415 - the command's own words

    yield CliRunner().invoke(cli, ["presets", name], catch_exceptions=False).output


def main() -> None:
    """Write the pages."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
