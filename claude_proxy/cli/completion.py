"""The command `completion`: prints the completion script of a shell."""

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

SHELLS: dict[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}

EXAMPLES = """\b
Put one of these into the shell's start-up file:
  eval "$(claude-proxy completion bash)"
  eval "$(claude-proxy completion zsh)"
  claude-proxy completion fish | source
"""


@click.command(epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the shell's completion script."""
    root = context.find_root()
    program = str(root.info_name)
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    click.echo(SHELLS[shell](root.command, {}, program, variable).source())
