"""The command group `container`: any client in a container whose only network is the proxy.

Each command is a module of its name, imported when it is invoked.
"""

import click

from claude_proxy.cli.groups import LazyGroup

# The one-line descriptions are here so that `--help` need not import the commands; a test compares
# them with the commands' own.
COMMANDS = {
    "run": "Make a container and run a command in it.",
    "exec": "Run one more command in a running container.",
    "shell": "Open a shell in a running container.",
    "start": "Start a container again, or give a running one its proxy back.",
    "stop": "Stop containers.",
    "restart": "Stop a container and start it again.",
    "rm": "Remove containers, with their homes.",
    "list": "List the containers.",
    "logs": "Print what a container's command has printed.",
    "verify": "Check that a running container has no network but the proxy.",
    "attack": "Try to get out of a running container, and keep the result.",
    "stats": "Show what running containers use, and what they were allowed and denied.",
    "build": "Build the image of an agent through the proxy, and check it.",
    "update": "Update a container's packages, without opening its network.",
    "export": "Write a container's history of Claude Code into FILE, without credentials.",
    "import": "Write an exported history of Claude Code into the home of a container.",
    "way-out": "Serve containers that compose, an editor or systemd makes.",
    "init": "Write files for compose, dev containers, quadlet, Kubernetes or CI.",
}

EPILOG = """\b
Examples:
  claude-proxy container run --image node:22 -- npm test
  claude-proxy container run ~/src/project --image agents --name web -- claude
  claude-proxy container run --image agents --dry-run -- claude
  claude-proxy container exec web -- npm test
  claude-proxy container shell
  claude-proxy container list
"""


def module_of(command: str) -> str:
    """Return the name of the module that a command is in."""
    return f"claude_proxy.cli.container_{command.replace('-', '_')}"


@click.group(name="container", cls=LazyGroup, texts=COMMANDS, module_of=module_of, epilog=EPILOG)
def command() -> None:
    """Run any client in a container whose only network is the proxy.

    Nothing of claude-proxy is in the container: the sockets are made in its network namespace from
    outside. The engine is podman or docker.
    """
