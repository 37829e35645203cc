"""The command `container shell`: bash, or else sh, in a running container."""

import click

from claude_proxy.cli.container_exec import shell_in
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.cli.container_options import statedir_option
from claude_proxy.cli.container_targets import optional_name, running, warn_without_keeper

EPILOG = """\b
Examples:
  claude-proxy container shell          in the only container that runs, or that of this directory
  claude-proxy container shell web
  echo 'git status' | claude-proxy container shell web

It begins in /workspace, and ends with the exit code of the shell.
"""


@click.command(name="shell", epilog=EPILOG)
@optional_name
@statedir_option
def command(*, name: str | None, statedir: str | None) -> int:
    """Open a shell in a running container."""
    container = running(statedir_in_force(statedir), name)
    warn_without_keeper(container)
    return shell_in(container, terminal=None)
