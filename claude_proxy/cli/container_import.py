"""`claude-proxy container import`: a history of Claude Code into the home of a container."""

from pathlib import Path

import click

from claude_proxy.cli.container_history import home_of
from claude_proxy.cli.container_options import name_argument, statedir_option
from claude_proxy.cli.run import say
from claude_proxy.sandbox.container import history
from claude_proxy.sandbox.run_clone import counted

EPILOG = """\b
Examples:
  claude-proxy container import web web-history.tar
  claude-proxy container import web web-history.tar --force    replacing what is there
"""


@click.command(name="import", epilog=EPILOG)
@name_argument
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace files that the container has already.")
@statedir_option
def command(*, name: str, file: Path, force: bool, statedir: str | None) -> int:
    """Write an exported history of Claude Code into the home of a container."""
    home = home_of(statedir, name)
    done = history.restore(file, home, replace=force)
    say(f"imported: {counted(done.files, 'file')}")
    if done.kept:
        kept = counted(len(done.kept), "file")
        say(f"note: kept {kept} that the container already had; --force replaces such files")
    return 0
