"""Command `allow`: adds hosts to the owner's allowlist, which a running proxy reloads by itself.

A denial tells its reader to ask the owner for it. The file is written only if the new text loads,
and whole or not at all.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import click

from claude_proxy.cli import paths
from claude_proxy.cli.shared_options import allowlist_option, confdir_option
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.edit import AllowEntry, EditError, with_entries
from claude_proxy.config.owner_files import OwnerFiles
from claude_proxy.errors import ConfigError
from claude_proxy.policy.patterns import PatternError

EPILOG = """\b
Examples:
  claude-proxy allow docs.python.org
  claude-proxy allow '*.example.com' git.corp.example:8443 http://mirror.example
"""


@click.command(epilog=EPILOG)
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@allowlist_option("The file to write.  [default: allowlist.yaml in --confdir]")
@confdir_option("the allowlist")
def command(hosts: tuple[str, ...], allowlist_file: Path | None, confdir: Path | None) -> None:
    """Add hosts to the allowlist.

    HOST is written as in the file, with a port or a scheme where they are not 443 and https.
    If you have no list of your own yet, it starts as a copy of the shipped one.
    """
    own = (allowlist_file or (confdir or paths.default_confdir()) / paths.ALLOWLIST).absolute()
    begun = allowlist_file is None and not os.path.lexists(own)
    before = paths.read_allowlist(paths.shipped_allowlist() if begun else own)
    after = before
    library = OwnerFiles(confdir or paths.default_confdir()).library
    for host in hosts:
        after = _with_host(after, host, own, library)
    if after == before:
        click.echo(f"Nothing to add: {own} says so already.")
        return
    _replace(own, after)
    click.echo(f"Allowed in {own}: {', '.join(hosts)}")
    if begun:
        click.echo("This list is new: it replaces the shipped one, in a running proxy too.")


def _with_host(text: str, host: str, path: Path, library: loader.Library) -> str:
    name = str(path)
    policy = loader.load(text, name=name, library=library)
    try:
        wanted = with_entries(text, [AllowEntry.parse(host)])
    except PatternError as error:
        raise ConfigError(error.what, where=host, fix=error.fix) from error
    except EditError as error:
        raise ConfigError(str(error), where=f"{path}:{error.line}", fix=error.fix) from error
    added, _ = policy.diff(loader.load(wanted, name=name, library=library))
    return wanted if added else text


def _replace(path: Path, text: str) -> None:
    """Put `text` into the file, all of it or nothing; follow a link, keep the mode."""
    try:
        target = path.resolve()
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        descriptor, unfinished = tempfile.mkstemp(prefix=".allowlist-", dir=target.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            Path(unfinished).replace(target)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(unfinished).unlink()
            raise
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigError(
            f"the allowlist cannot be written: {reason}",
            where=str(path),
            fix="check its owner, its mode and the free space",
        ) from error
