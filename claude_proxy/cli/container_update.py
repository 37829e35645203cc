"""`claude-proxy container update`: a container's packages, on a network of the update's own."""

from pathlib import Path
from typing import Any

import click

from claude_proxy.cli import options
from claude_proxy.cli.container_build import show
from claude_proxy.cli.container_network import network_options, network_settings, until_interrupted
from claude_proxy.cli.container_options import engine_of, name_argument
from claude_proxy.cli.container_targets import refuse_temporary
from claude_proxy.cli.run import say
from claude_proxy.sandbox.container import store, updates
from claude_proxy.sandbox.container.image_build import BuildRules
from claude_proxy.sandbox.container.plan.build_rules import Source
from claude_proxy.sandbox.container.plan.update_words import ALL_PRESETS
from claude_proxy.sandbox.container.updates import UpdateRequest
from claude_proxy.sandbox.container.workbench import Reports

EPILOG = """\b
Examples:
  claude-proxy container update web                  apt, apk or dnf, whichever is in the image
  claude-proxy container update web -- apt-get install -y python3
  claude-proxy container update web --restart
  claude-proxy container update web --policy my-build -- pip install --upgrade mypy

The command runs as root in a copy of the container's image, on a network of its own that reads the
archives of Debian, Ubuntu, Alpine and Fedora, or has the rules of --policy. The container goes on
meanwhile, and nothing is opened for it; it has the result when it starts next. The exit code is the
command's; if that fails, nothing is changed.
"""


@click.command(
    cls=options.TopicalCommand,
    name="update",
    epilog=EPILOG,
    context_settings={"allow_interspersed_args": True},
)
@name_argument
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARGS]...]")
@click.option("--mirror", metavar="URL", help="Archive that the update may read, too.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="CIDR",
    help="Private address that --mirror may have (repeatable).",
)
@click.option(
    "--policy",
    "policy_name",
    metavar="NAME",
    help="Update under this policy, instead of the update's own rules.",
)
@click.option("--restart", is_flag=True, help="Restart the container if the update succeeds.")
@network_options
@click.pass_context
def command(context: click.Context, /, **given: Any) -> int:
    """Update a container's packages, without opening its network."""
    return until_interrupted(lambda: _update(context, given))


def _update(context: click.Context, given: dict[str, Any]) -> int:
    settings = network_settings(context, given)
    if given["addresses"] and given["mirror"] is None:
        raise click.UsageError("--address is for a server that is named: add --mirror")
    stored = store.load(settings.statedir, given["name"])
    refuse_temporary(stored, otherwise="build an image: claude-proxy container build")
    engine = engine_of(stored)
    mirror = given["mirror"]
    request = UpdateRequest(
        command=given["words"],
        rules=BuildRules(
            presets=ALL_PRESETS,
            sources=() if mirror is None else (Source.parse(mirror, "--mirror"),),
            addresses=given["addresses"],
            policy=given["policy_name"],
        ),
    )
    updates.update(engine, stored, request, settings, Reports(say, show))
    if given["restart"]:
        return _restarted(context, stored.name, settings.statedir)
    say(f"updated: {stored.name} has its new image when it starts next:")
    say(f"  claude-proxy container restart {stored.name}")
    return 0


def _restarted(context: click.Context, name: str, statedir: Path) -> int:
    from claude_proxy.cli.container_restart import command as restart  # noqa: PLC0415 - only then

    with restart.make_context("restart", [name, f"--statedir={statedir}"], parent=context) as inner:
        return int(restart.invoke(inner))
