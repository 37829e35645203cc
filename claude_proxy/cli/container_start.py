"""The command `container start`: a container again, or a new keeper for one that runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from claude_proxy.cli import container_run, run
from claude_proxy.cli.container_options import engine_of, statedir_option
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.cli.container_targets import meant, optional_name
from claude_proxy.sandbox.container import launcher
from claude_proxy.sandbox.container.plan.model import ContainerSpec
from claude_proxy.sandbox.container.store import StoredContainer

EPILOG = """\b
Examples:
  claude-proxy container start web             in the background
  claude-proxy container start web --attach    with its streams, until it ends
  claude-proxy container start web             while it runs: its proxy again, if that is gone

The policy and the credentials are read again; image and options stay as they were.
"""


@click.command(name="start", epilog=EPILOG)
@optional_name
@click.option("--attach", "-a", is_flag=True, help="Wait for its end, with its streams.")
@statedir_option
@click.pass_context
def command(
    context: click.Context, /, name: str | None, *, attach: bool, statedir: str | None
) -> int:
    """Start a container again, or give a running one its proxy back."""
    place = statedir_in_force(statedir)
    stored = meant(place, name, running=False)
    engine = engine_of(stored)
    with spec_again(context, place, stored) as spec:
        run.settle(spec.run)
        return launcher.start(spec, stored, engine, attach=attach, say=run.say)


@contextmanager
def spec_again(
    context: click.Context, place: Path, stored: StoredContainer
) -> Iterator[ContainerSpec]:
    """Read the options of a container again, and with them its policy and settings."""
    words = list(stored.words)
    options = words[: words.index("--")] if "--" in words else words
    if not any(word.startswith("--statedir=") for word in options):
        words.insert(0, f"--statedir={place}")
    with container_run.command.make_context("run", words, parent=context) as inner:
        yield container_run.spec_of(inner, inner.params)
