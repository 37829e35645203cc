"""What runs: proxies, runs and containers of this user, and the choice of one of them.

Law kept: nothing is guessed. Where several could be meant, a person at a terminal is asked, and a
script gets an error that names them all.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from claude_proxy.audit.escape import escape_text
from claude_proxy.control import client
from claude_proxy.control.client import AmbiguousError, Proxy
from claude_proxy.control.protocol import ControlError
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.system import runs

CONTAINER, RUN = "container", "run"


@dataclass(frozen=True, slots=True)
class RunWithoutProxy:
    """A run that has no proxy of its own: it joined a running one, or has no network."""

    name: str
    pid: int  # of its launcher
    program: str
    project: str


def proxies() -> list[Proxy]:
    """Return the running proxies of this user; ClaudeProxyError if they cannot be listed."""
    return client.find(os.environ)


def runs_without_proxy(known: Sequence[Proxy]) -> list[RunWithoutProxy]:
    """Return the running runs that none of the proxies is for."""
    from claude_proxy.sandbox import run_directory  # noqa: PLC0415 - completion needs none of it

    served = {one.facts.run for one in known}
    found = []
    for base in runs.bases_of(os.environ):
        projects = {one.name: one.project for one in runs.living_runs(base)}
        with contextlib.suppress(ClaudeProxyError):
            found += [
                RunWithoutProxy(one.name, one.pid, one.program, projects.get(one.name, ""))
                for one in run_directory.living(base)
                if one.name not in served
            ]
    return sorted(found, key=lambda one: one.name)


def here() -> Path:
    """Return the working directory; the root if it was removed."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")


def meant(name: str | None, known: Sequence[Proxy] | None = None) -> Proxy:
    """Return the proxy that is meant: named, of this directory, the only one, or as answered.

    ControlError if there is none, or if it is not clear and nobody can be asked.
    """
    found = proxies() if known is None else list(known)
    try:
        return client.choose(found, here(), name=name)
    except AmbiguousError as error:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        return asked_for(error.proxies)


def asked_for(known: Sequence[Proxy]) -> Proxy:
    """Return the proxy that a person at the terminal chooses."""
    for number, one in enumerate(known, 1):
        click.echo(f"  {number}  {one.name:<20}  {where_of(one)}", err=True)
    number = click.prompt("Which one", type=click.IntRange(1, len(known)), err=True)
    return known[number - 1]


def where_of(proxy: Proxy) -> str:
    """Return where a proxy works: the project of its run, or what it listens on."""
    facts = proxy.facts
    what = facts.project or ", ".join(facts.listens)
    return escape_text(f"{facts.kind}, {what}" if what else facts.kind)


def chosen(name: str | None, *, every: bool) -> list[Proxy]:
    """Return the proxy that is meant, or all of them."""
    if not every:
        return [meant(name)]
    if name is not None:
        raise ControlError(
            "--all names every proxy", where=name, fix="leave out the name, or --all"
        )
    found = proxies()
    if not found:
        raise client.none_runs()
    return found


# --- what commands share


def complete_names(
    _context: click.Context, _param: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Return the names of what runs."""
    return [CompletionItem(name, help=text) for name, text in _named() if name.startswith(begun)]


def _named() -> Iterator[tuple[str, str]]:
    with contextlib.suppress(ClaudeProxyError, OSError):
        known = proxies()
        yield from ((one.name, where_of(one)) for one in known)
        yield from ((one.name, "run without a proxy") for one in runs_without_proxy(known))


def name_argument(function: Callable[..., Any]) -> Any:
    """Add the argument that may name a proxy, run or container."""
    return click.argument("name", required=False, metavar="[NAME]", shell_complete=complete_names)(
        function
    )


def json_option(function: Callable[..., Any]) -> Any:
    """Add the option that prints what a program reads."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")(
        function
    )


def print_error(error: ClaudeProxyError) -> None:
    """Print an error that does not end the command."""
    for line in error.lines():
        click.echo(f"claude-proxy: {line}" if line.startswith("error:") else line, err=True)
