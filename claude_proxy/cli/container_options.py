"""What the commands of `container` share: names, options, CMD, and where containers are kept."""

import os
from pathlib import Path
from typing import Any, override

import click
from click.shell_completion import CompletionItem

from claude_proxy.cli import paths
from claude_proxy.sandbox.container import store
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.store import StoredContainer

_COMMAND = "claude_proxy.container_command"  # in `Context.meta`


class CommandAfterDashes(click.Command):
    """A command whose last argument, CMD, is what follows `--`."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[_COMMAND] = tuple(args[at + 1 :])
        return super().parse_args(ctx, args[:at])


def command_after_dashes(context: click.Context) -> tuple[str, ...]:
    """Return CMD; empty if there is none."""
    words: tuple[str, ...] = context.meta[_COMMAND]
    return words


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


def patience_option(function: Any) -> Any:
    """Add the option that says how long a container that is stopped has to end."""
    return click.option(
        "--time",
        "seconds",
        type=click.IntRange(min=0),
        default=10,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait after SIGTERM before SIGKILL.",
    )(function)


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
