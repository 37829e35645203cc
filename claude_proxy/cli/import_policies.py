"""Command `import`: converts another program's policies to policy files.

Nothing that is there is overwritten unless --force says so.
"""

import os
import sys
from pathlib import Path

import click

from claude_proxy.cli import import_lists
from claude_proxy.cli.groups import Group
from claude_proxy.config.bw_claude.convert import Conversion, convert
from claude_proxy.config.bw_claude.reader import MAX_BYTES
from claude_proxy.config.strict_yaml.file_text import decode
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.errors import ConfigError

EXAMPLES = """\b
Examples:
  claude-proxy import bw-claude groups.toml --output ~/.config/claude-proxy
"""
GROUP_EXAMPLES = """\b
Examples:
  claude-proxy import squid /etc/squid/squid.conf
  claude-proxy import tinyproxy /etc/tinyproxy/tinyproxy.conf --output allowlist.yaml
  claude-proxy import srt ~/.srt-settings.json --policy work
  claude-proxy import claude-code ~/.claude/settings.json
  claude-proxy import hosts allowed.txt
  claude-proxy import bw-claude groups.toml
"""


@click.group(cls=Group, epilog=GROUP_EXAMPLES)
def command() -> None:
    """Convert another program's policies to policy files."""


for _each in import_lists.COMMANDS:
    command.add_command(_each)


@command.command("bw-claude", epilog=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write policies/, presets/ and profiles/ below this directory.  [default: print them]",
)
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def bw_claude(file: Path, *, output: Path | None, force: bool) -> int:
    """Convert a groups file of bw-claude.

    What cannot mean the same is reported with its line: then less is allowed than before.
    """
    found = convert(_text_of(file), name=str(file))
    if output is None:
        if force:
            what, fix = "--force is for files, and they are printed", "add --output DIR"
            raise ConfigError(what, where="--force", fix=fix)
        _print(found)
    else:
        _write(found, output, force=force)
    for remark in found.remarks:
        click.echo(f"not carried over: {harmless(str(remark))}", err=True)
    return 0


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        what = f"the groups file cannot be read: {reason}"
        raise ConfigError(what, where=str(file), fix="name a readable file") from error
    if len(raw) > MAX_BYTES:
        what = f"the file is larger than {MAX_BYTES // 1024} KiB"
        raise ConfigError(what, where=str(file), fix="is it the right file?")
    return decode(raw, str(file))


def _print(found: Conversion) -> None:
    for at, (name, text) in enumerate(found.files.items()):
        click.echo(f"{'' if at == 0 else chr(10)}# --- {name}\n{text}", nl=False)


def _write(found: Conversion, output: Path, *, force: bool) -> None:
    there = [name for name in found.files if os.path.lexists(output / name)]
    if there and not force:
        raise ConfigError(
            "these files exist, and nothing was written: " + ", ".join(there),
            where=str(output),
            fix="name another directory, or overwrite them with --force",
        )
    try:
        for name, text in found.files.items():
            path = output / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if force:
                path.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - with its mode
                file.write(text)
            click.echo(f"wrote {path}", file=sys.stdout)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        what = f"the files cannot be written: {reason}"
        fix = "name a directory that you may write in"
        raise ConfigError(what, where=str(output), fix=fix) from error
