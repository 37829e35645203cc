"""The command `container logs`: what the container's command has printed."""

import os
import sys

import click

from claude_proxy.cli.container_options import engine_of, statedir_option
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.cli.container_targets import meant, optional_name
from claude_proxy.sandbox.container import launcher

EPILOG = """\b
Examples:
  claude-proxy container logs web
  claude-proxy container logs web --follow --tail 20
  claude-proxy log --run web       what its proxy allowed and denied

What `exec` and `shell` print is not in it.
"""


@click.command(name="logs", epilog=EPILOG)
@optional_name
@click.option("--follow", "-f", is_flag=True, help="Go on with what it prints from now on.")
@click.option(
    "--tail",
    type=click.IntRange(min=0),
    metavar="COUNT",
    help="Only the last lines.  [default: all]",
)
@click.option("--timestamps", "-t", is_flag=True, help="Begin each line with its time.")
@statedir_option
def command(
    *, name: str | None, follow: bool, tail: int | None, timestamps: bool, statedir: str | None
) -> None:
    """Print what a container's command has printed."""
    stored = meant(statedir_in_force(statedir), name, running=False)
    engine = engine_of(stored)
    launcher.ours(engine, stored)
    words = ["logs", *(["--follow"] if follow else []), *(["--timestamps"] if timestamps else [])]
    if tail is not None:
        words.append(f"--tail={tail}")
    sys.stdout.flush()
    # In place of this process, so that a Ctrl-C and the exit code are the engine's.
    argv = engine.words(*words, stored.name)
    os.execve(argv[0], argv, engine.environ)  # noqa: S606 - no shell
