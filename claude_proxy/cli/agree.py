"""Command `agree`: shows what a project's file restricts, and agrees to it."""

import os
from pathlib import Path

import click

from claude_proxy.cli import paths, project_agreement
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox import profiles
from claude_proxy.sandbox.agreements import Agreements

EPILOG = """\b
Examples:
  claude-proxy agree                   the file of the current directory, or the nearest above it
  claude-proxy agree ~/src/project
A run asks by itself on a terminal. Elsewhere it ends if .claude-proxy.yaml has changed.
"""


@click.command(epilog=EPILOG)
@click.argument(
    "directory",
    required=False,
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    metavar="[DIR]",
)
@click.option(
    "--statedir",
    envvar="CLAUDE_PROXY_STATEDIR",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Directory of the agreements.  [default: ~/.local/state/claude-proxy]",
)
def command(directory: Path | None, *, statedir: Path | None) -> int:
    """Show what a project's .claude-proxy.yaml restricts, and agree to it."""
    project = Path(os.path.abspath(directory or Path.cwd()))  # noqa: PTH100 - as `run` reads it
    statedir = statedir or paths.statedir_in_force()
    text, change = project_agreement.pending(project, statedir)
    if change is None:
        path = profiles.find_project_file(project)
        if path is None:
            raise ConfigError(
                f"there is no {profiles.PROJECT_FILE} here or above, and there was none",
                where=str(project),
                fix="name the directory of a project that has one",
            )
        click.echo(f"you have agreed to {path} already")
        return 0
    if text is not None:
        profiles.read_restrictions(change.path)  # what is wrong in it is said now
    for line in project_agreement.lines_of(change):
        click.echo(line)
    Agreements(statedir).record(change.path, change.text)
    click.echo("agreed: runs of this project use it from now on")
    return 0
