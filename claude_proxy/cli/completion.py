"""Prints the script that completes commands and options in a shell."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")

EXAMPLES = """\b
Put one of these into the shell's start-up file:
  eval "$(claude-proxy completion bash)"
  eval "$(claude-proxy completion zsh)"
  claude-proxy completion fish | source
"""


@click.command(epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the shell's completion script."""
    root = context.find_root()
    variable = f"_{str(root.info_name).replace('-', '_').upper()}_COMPLETE"
    completion_class = get_completion_class(shell)
    if completion_class is None:
        raise LookupError(shell)
    completion = completion_class(root.command, {}, str(root.info_name), variable)
    click.echo(completion.source())
