"""The command `container start`: a container again, or a new keeper for one that runs."""

import click

from claude_proxy.cli import container_run, run
from claude_proxy.cli.container_options import engine_of, name_argument, statedir_option
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.sandbox.container import launcher, store


@click.command(name="start")
@name_argument
@click.option("--attach", "-a", is_flag=True, help="Wait for its end, with its streams.")
@statedir_option
@click.pass_context
def command(context: click.Context, /, name: str, attach: bool, statedir: str | None) -> int:  # noqa: FBT001 - click's
    """Start a container again, or give a running one its proxy back."""
    place = statedir_in_force(statedir)
    stored = store.load(place, name)
    engine = engine_of(stored)
    words = list(stored.words)
    if statedir is not None and not any(word.startswith("--statedir=") for word in words):
        words.insert(0, f"--statedir={place}")
    with container_run.command.make_context("run", words, parent=context) as inner:
        spec = container_run.spec_of(inner, inner.params)
        run.settle(spec.run)
        return launcher.start(spec, stored, engine, attach=attach, say=run.say)
