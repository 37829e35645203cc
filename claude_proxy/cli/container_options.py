"""What the commands of `container` share: the name of a container, and where they are kept."""

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from claude_proxy.cli import paths
from claude_proxy.sandbox.container import store
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.store import StoredContainer


def complete_names(
    context: click.Context, _param: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Return the containers that there are."""
    found = store.load_all(statedir(context.params.get("statedir")))
    return [
        CompletionItem(one.name, help=f"{one.image}, {one.project}")
        for one in found
        if one.name.startswith(begun)
    ]


def name_argument(function: Any) -> Any:
    """Add the argument that names a container."""
    return click.argument("name", shell_complete=complete_names)(function)


def statedir_option(function: Any) -> Any:
    """Add the option for the directory in which the containers are kept."""
    return click.option(
        "--statedir",
        envvar="CLAUDE_PROXY_STATEDIR",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="Directory of the containers.  [default: ~/.local/state/claude-proxy]",
    )(function)


def statedir(given: str | Path | None) -> Path:
    """Return the directory of the state that is in force."""
    return paths.statedir_in_force() if given is None else Path(given).absolute()


def engine_of(stored: StoredContainer) -> Engine:
    """Return the engine that has made a container."""
    return Engine.find(stored.engine, os.environ)
