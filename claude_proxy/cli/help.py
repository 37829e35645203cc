"""Command `help`: the help of a command, by its name."""

import click
from click.shell_completion import CompletionItem

from claude_proxy.errors import ConfigError

EXAMPLES = """\b
Examples:
  claude-proxy help                the commands
  claude-proxy help run            as `claude-proxy run --help`
  claude-proxy help ca rotate
"""


def _commands(context: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the commands that may come next."""
    found: click.Command | None = context.find_root().command
    for name in context.params.get(str(param.name)) or ():
        found = found.get_command(context, name) if isinstance(found, click.Group) else None
    names = found.list_commands(context) if isinstance(found, click.Group) else []
    return [CompletionItem(name) for name in names if name.startswith(begun)]


@click.command(epilog=EXAMPLES)
@click.argument("words", nargs=-1, metavar="[COMMAND]...", shell_complete=_commands)
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a command."""
    shown = context.find_root()
    for word in words:
        group = shown.command
        if not isinstance(group, click.Group):
            fix = f"see `{shown.command_path} --help`"
            raise ConfigError(
                f"{shown.command_path} has no commands of its own", where=word, fix=fix
            )
        name, found, _ = group.resolve_command(shown, [word])
        if found is None:
            raise ConfigError(f"there is no command {word}", where=shown.command_path)
        shown = click.Context(found, info_name=name, parent=shown, **found.context_settings)
    click.echo(shown.get_help())
