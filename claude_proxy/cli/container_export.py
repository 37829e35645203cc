"""`claude-proxy container export`: the history of Claude Code in a container, as an archive."""

from pathlib import Path

import click

from claude_proxy.cli.container_history import home_of
from claude_proxy.cli.container_options import name_argument, statedir_option
from claude_proxy.cli.run import say
from claude_proxy.sandbox.container import history
from claude_proxy.sandbox.run_clone import counted

EPILOG = """\b
Examples:
  claude-proxy container export web web-history.tar
  claude-proxy container export web web-history.tar --redact --force
"""


@click.command(name="export", epilog=EPILOG)
@name_argument
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--redact",
    is_flag=True,
    help="Replace what looks like a credential, instead of refusing it.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@statedir_option
def command(*, name: str, file: Path, redact: bool, force: bool, statedir: str | None) -> int:
    """Write a container's history of Claude Code into FILE, without credentials."""
    home = home_of(statedir, name)
    done = history.export(home, file, redact=redact, replace=force)
    say(f"exported: {counted(done.files, 'file')} into {file}")
    if done.redacted:
        say(
            f"note: in {counted(done.redacted, 'file')}, what looked like a credential was replaced"
        )
    return 0
