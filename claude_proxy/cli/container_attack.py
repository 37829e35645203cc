"""The command `container attack`: tries to get out of a container, and keeps the result.

Law kept: fail closed: what could not be tried is not clean.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from claude_proxy.audit.sinks import encoded
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.cli.container_options import statedir_option
from claude_proxy.cli.container_start import spec_again
from claude_proxy.cli.container_targets import RunningContainer, optional_name, running
from claude_proxy.cli.doctor import attack_lines
from claude_proxy.deferred.data_classes import replace
from claude_proxy.doctor.attack import catalogue
from claude_proxy.doctor.attack.catalogue import AttackGroup, AttackResult, Outcome
from claude_proxy.doctor.attack.container import ContainerTarget, attack_container
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import launcher, store

EPILOG = """\b
Examples:
  claude-proxy container attack web
  claude-proxy container list            says whether the last one was clean, and when

\b
The attacks run in a container of the same image, as hard as this one and in its network; it is
removed afterwards. Their requests are denied and recorded: claude-proxy log --run NAME --denied.
Exit code: 0 if all were stopped, 1 if anything got out, 2 if something could not be tried.
"""


@click.command(name="attack", epilog=EPILOG)
@optional_name
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@statedir_option
@click.pass_context
def command(
    context: click.Context, /, name: str | None, *, as_json: bool, statedir: str | None
) -> int:
    """Try to get out of a running container, and keep the result."""
    place = statedir_in_force(statedir)
    container = running(place, name)
    if not container.has_keeper:
        raise ClaudeProxyError(
            f"the proxy of {container.stored.name} is gone, so no denial would prove anything",
            where=container.stored.name,
            fix=f"give it back: claude-proxy container start {container.stored.name}",
        )
    with spec_again(context, place, container.stored) as spec:
        asked = container.engine.begin_image(container.stored.image_id)
        prepared = launcher.prepare(spec, container.engine, asked)
        plan, _ = launcher.plan_of(prepared)
        target = ContainerTarget(
            spec.run, plan, container.engine, container.state, Path.home(), os.environ
        )
        rows = attack_container(target)
    _keep(place, container, rows)
    if as_json:
        click.echo(encoded({"attacks": [asdict(row) for row in rows]}))
    else:
        click.echo("\n".join(attack_lines(rows)))
    return catalogue.exit_code(rows)


def _keep(place: Path, container: RunningContainer, rows: Sequence[AttackResult]) -> None:
    """Keep what came of it with the container, as it is by now."""
    tried = [row for row in rows if row.group is not AttackGroup.ALLOWED]
    result = {
        "time": time.time(),
        "tried": len(tried),
        "stopped": sum(row.result is Outcome.STOPPED for row in tried),
        "through": [row.name for row in rows if row.result is Outcome.THROUGH],
        "unknown": [row.name for row in rows if row.result is Outcome.ERROR],
        "plan": container.stored.plan,
    }
    store.save(place, replace(store.load(place, container.stored.name), attack=result))
