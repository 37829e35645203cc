"""The command `container stop`: ends a container, which stays and can be started again."""

import click

from claude_proxy.cli.container_options import engine_of, name_argument, statedir_option
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.sandbox.container import store
from claude_proxy.sandbox.container.plan.model import ContainerStatus


@click.command(name="stop")
@name_argument
@click.option(
    "--time",
    "seconds",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait after SIGTERM before SIGKILL.",
)
@statedir_option
def command(*, name: str, seconds: int, statedir: str | None) -> int:
    """Stop a container."""
    stored = store.load(statedir_in_force(statedir), name)
    engine = engine_of(stored)
    state = engine.inspect(name)
    if state is None or state.status is not ContainerStatus.RUNNING:
        click.echo(f"claude-proxy: {name} does not run", err=True)
        return 0
    engine.stop(name, timeout_s=seconds)
    return 0
