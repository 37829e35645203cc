"""The command `container restart`: stops a container and starts it again.

Law kept: no quiet downgrade: what would stop the start is found before anything is stopped.
"""

import click

from claude_proxy.cli import run
from claude_proxy.cli.container_options import engine_of, patience_option, statedir_option
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.cli.container_start import spec_again
from claude_proxy.cli.container_targets import all_meant, refuse_temporary, several_names
from claude_proxy.sandbox.container import ending, launcher, name_lock, untold

EPILOG = """\b
Examples:
  claude-proxy container restart web
  claude-proxy container restart --all

The policy and the credentials are read again; image and options stay as they were.
"""


@click.command(name="restart", epilog=EPILOG)
@several_names
@click.option("--all", "every", is_flag=True, help="Restart all containers.")
@patience_option
@statedir_option
@click.pass_context
def command(
    context: click.Context,
    /,
    names: tuple[str, ...],
    *,
    every: bool,
    seconds: int,
    statedir: str | None,
) -> int:
    """Stop a container and start it again."""
    place = statedir_in_force(statedir)
    found = all_meant(place, names, every=every, running=False)
    for stored in found:
        refuse_temporary(stored)
    code = 0
    for stored in found:
        engine = engine_of(stored)
        launcher.ours(engine, stored)
        with spec_again(context, place, stored) as spec:
            run.settle(spec.run)
            with name_lock.held(place, stored.name):
                ending.stop(engine, stored, place, timeout_s=seconds)
                untold.tell(place, stored.name, run.say)
                code = launcher.start(spec, stored, engine, attach=False, say=run.say) or code
    return code
