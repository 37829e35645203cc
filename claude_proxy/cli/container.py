"""`claude-proxy container`: runs whose wall is a container engine's, and files for other programs.

The commands of the group are modules of their own, imported when they are invoked.
"""

from importlib import import_module
from typing import override

import click

from claude_proxy.cli.groups import Group

COMMANDS = {
    "init": "Write files for compose, dev containers, quadlet, Kubernetes or CI.",
}


class ContainerGroup(Group):
    """A group whose commands are the modules `container_NAME`."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = import_module(f"claude_proxy.cli.container_{cmd_name}").command
        return found

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=ContainerGroup, name="container")
def command() -> None:
    """Run a command in a container whose only network is the proxy."""
