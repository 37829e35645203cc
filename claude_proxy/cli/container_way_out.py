"""`claude-proxy container way-out`: serves containers that somebody else makes.

It prepares the directory that the files of `container init` mount, and becomes `serve` with a
socket in it.
"""

import os
from pathlib import Path

import click

from claude_proxy.cli import paths, service_plan
from claude_proxy.cli.ca import confdir_option
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container import way_out
from claude_proxy.sandbox.container.files.way_out import SOCKET

EPILOG = """\b
Examples:
  claude-proxy container way-out                     until Ctrl-C, with your allowlist
  claude-proxy container way-out -- --policy claude
  claude-proxy container way-out --ready             whether it is served; exit code 0 or 1

The files of `claude-proxy container init` mount this directory. It holds the proxy's socket, a
relay with all that it needs, and the certificate of the CA. Options after -- are those of `serve`.
It serves containers whose user is you on this machine, as the files have it.
"""


@click.command(name="way-out", epilog=EPILOG)
@click.option(
    "--ready",
    is_flag=True,
    help="Only bring the directory up to date, and fail if no proxy serves there.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The directory.  [default: ~/.cache/claude-proxy/way-out]",
)
@confdir_option
@click.option(
    "--statedir",
    envvar="CLAUDE_PROXY_STATEDIR",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Directory of the audit log.  [default: ~/.local/state/claude-proxy]",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS]")
def command(
    *,
    ready: bool,
    directory: Path | None,
    confdir: Path,
    statedir: Path | None,
    words: tuple[str, ...],
) -> None:
    """Serve containers that compose, an editor or systemd makes."""
    place = (directory or way_out.directory_of(Path.home())).absolute()
    state = (statedir or paths.statedir_in_force()).absolute()
    if ready and words:
        raise ConfigError(
            "--ready starts no proxy, so it takes no options for one",
            where="the options after --",
            fix="leave them out",
        )
    way_out.prepare(place, cadir=confdir, statedir=state)
    if ready:
        way_out.check_served(place)
        return
    serve = [*service_plan.program(), "serve", f"--listen=unix:{place / SOCKET}"]
    serve += [f"--confdir={confdir}", f"--statedir={state}", *words]
    os.execv(serve[0], serve)  # noqa: S606 - no shell
