"""The command `container exec`: one more command in a running container.

It has the same user, environment and network as the container's own command.
"""

import sys
from collections.abc import Sequence
from typing import override

import click

from claude_proxy.cli.container_options import (
    CommandAfterDashes,
    command_after_dashes,
    complete_names,
    statedir_option,
)
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.cli.container_targets import (
    RunningContainer,
    running,
    warn_without_keeper,
)
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import exec_process, image_shell
from claude_proxy.sandbox.container.missing_programs import NoProgramError

EPILOG = """\b
Examples:
  claude-proxy container exec web -- npm test
  claude-proxy container exec web -- sh -c 'git log | head'
  claude-proxy container exec -- claude --continue    in the container of this directory
  tar c src | claude-proxy container exec web -- tar x
  claude-proxy container exec web                     a shell, as with `container shell`

The exit code is that of CMD; 126 and 127 if it cannot be executed or is not in the image.
"""


class ExecCommand(CommandAfterDashes):
    """`container exec`, which answers a CMD without dashes with how it is written."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "--" in args or ctx.resilient_parsing:
                raise
            said = error.format_message().rstrip(".")
            raise click.UsageError(
                f"{said}; CMD comes after --: claude-proxy container exec NAME -- CMD", ctx
            ) from error


@click.command(
    name="exec",
    cls=ExecCommand,
    epilog=EPILOG,
    options_metavar="[NAME] [OPTIONS] [-- CMD [ARGS]...]",
)
@click.argument("name", required=False, metavar="", shell_complete=complete_names)
@click.option(
    "--tty/--no-tty",
    "terminal",
    default=None,
    help="Give CMD a terminal.  [default: if this command has one]",
)
@statedir_option
@click.pass_context
def command(
    context: click.Context, /, name: str | None, *, terminal: bool | None, statedir: str | None
) -> int:
    """Run one more command in a running container."""
    words = command_after_dashes(context)
    container = running(statedir_in_force(statedir), name)
    warn_without_keeper(container)
    if not words:
        return shell_in(container, terminal=terminal)
    return execute(container, words, terminal=terminal)


def execute(container: RunningContainer, words: Sequence[str], *, terminal: bool | None) -> int:
    """Run a command in a container, with a terminal if both ends of this one are."""
    has_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if terminal and not has_terminal:
        raise ClaudeProxyError(
            "there is no terminal here to give to the command",
            where="--tty",
            fix="leave it out",
        )
    name = container.stored.name
    return exec_process.execute(
        container.engine, name, words, terminal=has_terminal if terminal is None else terminal
    )


def shell_in(container: RunningContainer, *, terminal: bool | None) -> int:
    """Run bash in a container, or sh where there is none."""
    for shell in image_shell.shells_of(container.state.pid):
        try:
            return execute(container, (shell,), terminal=terminal)
        except NoProgramError:
            continue
    raise ClaudeProxyError(
        "there is no shell in the container: neither bash nor sh",
        where=f"image {container.stored.image}",
        fix=f"run a program of the image: claude-proxy container exec {container.stored.name} -- "
        "PROGRAM; or use an image with a shell",
    )
