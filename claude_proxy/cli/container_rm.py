"""The command `container rm`: removes containers, with their homes and all that is kept of them.

Law kept: nothing is lost unasked: a container that runs is removed only on a second word.
"""

from collections.abc import Iterator
from pathlib import Path

import click

from claude_proxy.cli import run
from claude_proxy.cli.container_options import engine_of, statedir_option
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.cli.container_targets import several_names
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container import container_clone, ending, name_lock, store, untold

EPILOG = """\b
Examples:
  claude-proxy container rm web
  claude-proxy container rm --force web api    even if they run
  claude-proxy container rm --all
"""


@click.command(name="rm", epilog=EPILOG)
@several_names
@click.option("--all", "every", is_flag=True, help="Remove all containers.")
@click.option("--force", "-f", is_flag=True, help="Remove them even if they run.")
@statedir_option
def command(*, names: tuple[str, ...], every: bool, force: bool, statedir: str | None) -> int:
    """Remove containers, with their homes."""
    place = statedir_in_force(statedir)
    failed = 0
    for name in _names(place, names, every=every):
        try:
            done = _remove(place, name, force=force)
        except ClaudeProxyError as error:
            failed = failed or error.exit_code
            first, *more = error.lines()
            click.echo("\n".join(["claude-proxy: " + first, *more]), err=True)
        else:
            click.echo(done, err=True)
    return failed


def _names(place: Path, names: tuple[str, ...], *, every: bool) -> Iterator[str]:
    if every == bool(names):
        # Not the only one there is: what is removed is named.
        raise ConfigError(
            "which containers to remove is not said" if not names else "--all names every one",
            where="claude-proxy container rm",
            fix="name them, or add --all" if not names else "leave out the names, or --all",
        )
    if every:
        yield from store.names(place)
    yield from dict.fromkeys(names)


def _remove(place: Path, name: str, *, force: bool) -> str:
    """Remove a container, or what is left of one; return what was removed."""
    try:
        stored = store.load(place, name)
    except ClaudeProxyError:
        if not force or not store.directory_of(place, name).exists():
            raise
        return _remove_directory(place, name)
    with name_lock.held(place, name):
        ending.remove(engine_of(stored), stored, place, run.say, force=force)
    untold.tell(place, name, run.say)
    container_clone.report(place, stored, run.say)
    return f"removed the container {name}"


def _remove_directory(place: Path, name: str) -> str:
    """Remove the directory of a container without a record; its engine is not known."""
    with name_lock.held(place, name):  # a start writes its record last
        store.remove(place, name)
    return (
        f"removed what was kept of {name}, which had no record that could be read; if podman or "
        f"docker still has a container of this name, remove it there: podman rm --force {name}"
    )
