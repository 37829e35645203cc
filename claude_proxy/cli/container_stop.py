"""The command `container stop`: ends containers, which stay and can be started again."""

import click

from claude_proxy.cli import run
from claude_proxy.cli.container_options import engine_of, patience_option, statedir_option
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.cli.container_targets import NoneRunsError, all_meant, several_names
from claude_proxy.sandbox.container import container_clone, ending, store, untold

EPILOG = """\b
Examples:
  claude-proxy container stop              the only one that runs, or that of this directory
  claude-proxy container stop web api
  claude-proxy container stop --all --time 2

A container that does not run, or that there is none of, is no error.
"""


@click.command(name="stop", epilog=EPILOG)
@several_names
@click.option("--all", "every", is_flag=True, help="Stop all containers.")
@patience_option
@statedir_option
def command(*, names: tuple[str, ...], every: bool, seconds: int, statedir: str | None) -> int:
    """Stop containers."""
    place = statedir_in_force(statedir)
    there = [name for name in names if (store.directory_of(place, name) / store.RECORD).exists()]
    for name in dict.fromkeys(names):
        if name not in there:
            click.echo(f'claude-proxy: there is no container "{name}"', err=True)
    if (names and not there) or (not names and not any(store.load_all(place))):
        return 0
    try:
        found = all_meant(place, there, every=every, running=True)
    except NoneRunsError as error:
        click.echo(f"claude-proxy: {error.what}; {error.where}", err=True)
        return 0
    for stored in found:
        ran = ending.stop(engine_of(stored), stored, place, timeout_s=seconds)
        untold.tell(place, stored.name, run.say)
        if not ran:
            click.echo(f"claude-proxy: {stored.name} does not run", err=True)
            continue
        container_clone.report(place, stored, run.say)
    return 0
