"""The command `container rm`: removes a container, with its home and all that is kept of it.

Law kept: nothing is lost unasked: a container that runs is removed only on a second word.
"""

import contextlib

import click

from claude_proxy.cli.container_options import engine_of, name_argument, statedir_option
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import removal, store
from claude_proxy.sandbox.container.plan.model import NAME_LABEL, ContainerStatus


@click.command(name="rm")
@name_argument
@click.option("--force", "-f", is_flag=True, help="Remove it even if it runs.")
@statedir_option
def command(*, name: str, force: bool, statedir: str | None) -> int:
    """Remove a container, with its home."""
    place = statedir_in_force(statedir)
    try:
        stored = store.load(place, name)
    except ClaudeProxyError:
        directory = store.directory_of(place, name)
        if not force or not directory.exists():
            raise
        store.remove(place, name)  # its record cannot be read
        return 0
    engine = engine_of(stored)
    state = engine.inspect(name)
    if state is not None and state.labels.get(NAME_LABEL) == name:
        if state.status is ContainerStatus.RUNNING and not force:
            raise ClaudeProxyError(
                f'the container "{name}" runs',
                where=name,
                fix=f"stop it first: claude-proxy container stop {name}; or add --force",
            )
        with contextlib.suppress(ClaudeProxyError):
            engine.stop(name, timeout_s=0)
        engine.remove(name, force=True)
    removal.forget(place, stored, engine)
    click.echo(f"removed the container {name}", err=True)
    return 0
