"""Declares the options that name files of the owner's, once for all commands that take them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

type Decorate = Callable[[Any], Any]


def allowlist_option(text: str) -> Decorate:
    """Return `--allowlist`, handed over as `allowlist_file`."""
    return _file("--allowlist", "allowlist_file", text)


def confdir_option(kept: str) -> Decorate:
    """Return `--confdir`, where `kept` lies among other things."""
    return click.option(
        "--confdir",
        envvar="CLAUDE_PROXY_CONFDIR",
        show_envvar=True,
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help=f"Where {kept} is kept.  [default: ~/.config/claude-proxy]",
    )


def _file(option: str, parameter: str, text: str) -> Decorate:
    return click.option(
        option,
        parameter,
        envvar=f"CLAUDE_PROXY_{option.removeprefix('--').upper()}",
        show_envvar=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=text,
    )
