"""The command `container verify`: checks that a running container has no network but the proxy.

The checks are those of `run --verify`, in the container's own network namespace: entered from
outside, or, where this user may not, joined by a second container.
"""

import click

from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.cli.container_options import statedir_option
from claude_proxy.cli.container_start import spec_again
from claude_proxy.cli.container_targets import optional_name, running
from claude_proxy.sandbox import netns, self_check
from claude_proxy.sandbox.container import container_check, launcher
from claude_proxy.sandbox.run_spec import verified_targets

EPILOG = """\b
Examples:
  claude-proxy container verify
  claude-proxy container verify web && claude-proxy container exec web -- npm test

Exit code: 0 if every check passed, 1 otherwise. `container attack` tries far more.
"""


@click.command(name="verify", epilog=EPILOG)
@optional_name
@statedir_option
@click.pass_context
def command(context: click.Context, /, name: str | None, *, statedir: str | None) -> int:
    """Check that a running container has no network but the proxy."""
    place = statedir_in_force(statedir)
    container = running(place, name)
    stored, pid = container.stored, container.state.pid
    found: list[self_check.SelfCheck] = []
    if not container.has_keeper:
        text = f"nobody keeps its proxy: claude-proxy container start {stored.name}"
        found.append(self_check.SelfCheck(False, text))
    with spec_again(context, place, stored) as spec:
        allowed, denied = verified_targets(spec.run)
        try:
            found += container_check.checks_from_outside(
                pid, allowed, denied, transparent=spec.run.sandbox.transparent
            )
        except netns.EntryError:
            engine = container.engine
            prepared = launcher.prepare(spec, engine, engine.begin_image(stored.image_id))
            plan, _ = launcher.plan_of(prepared)
            found += container_check.checks_from_beside(
                plan, engine, place, allowed, denied, transparent=spec.run.sandbox.transparent
            )
    for check in found:
        click.echo(str(check))
    return 0 if self_check.all_passed(found) else 1
