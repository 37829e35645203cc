"""`claude-proxy env`: print the environment variables that make a client use the proxy.

A shell runs the output, so each value is quoted by that shell's rules, and a value that cannot be
quoted safely is an error.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from ipaddress import IPv6Address
from pathlib import Path
from shlex import quote

import click

from claude_proxy.cli.ca import confdir_option
from claude_proxy.config.settings import DEFAULT_HOST, DEFAULT_PORT
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.trust.certificate_authority import (
    BUNDLE_FILE,
    BUNDLE_P12_FILE,
    CertificateAuthority,
)
from claude_proxy.trust.client_environment import Variable, variables
from claude_proxy.trust.published_certificate import CERTIFICATE_FILE
from claude_proxy.wire.authority import Authority

EXAMPLES = """\b
Examples:
  eval "$(claude-proxy env)"; claude                       sh, bash, zsh
  claude-proxy env | source                                fish
  claude-proxy env --shell json | from json | load-env     Nushell
  claude-proxy env --shell dotenv > .env
  eval "$(claude-proxy env --unset)"                       unset them
"""


class Shell(StrEnum):
    """The syntax in which the variables are printed."""

    SH = "sh"  # bash, dash, ksh and zsh as well
    FISH = "fish"
    NU = "nu"
    DOTENV = "dotenv"
    JSON = "json"


def quote_fish(text: str) -> str:
    """Quote for fish: within single quotes it has two escapes and expands nothing."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_nu(text: str) -> str:
    """Quote for Nushell: within double quotes a backslash escapes, and a dollar sign is literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def quote_dotenv(text: str) -> str:
    """Quote for .env files so that docker, compose, node and python read the same value."""
    # Docker keeps quotes as part of the value, so quote only where necessary.
    if re.fullmatch(r"[A-Za-z0-9_./:,@%+=|*\[\]-]*", text):
        return text
    # Readers disagree about single quotes and backslashes.
    if "'" in text or "\\" in text:
        raise ConfigError(
            "a .env file cannot hold a path with a quote or a backslash",
            where=text,
            fix="use a --confdir without them, or another --shell",
        )
    return f"'{text}'"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one shell sets and unsets environment variables."""

    assign: str
    quote: Callable[[str], str]
    unset: str | None  # None: it has no way to unset a variable
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


# The semicolons make `eval $(claude-proxy env)` work too, which joins the lines with spaces.
# Nushell treats HTTP_PROXY and http_proxy as one variable, except through `load-env`.
DIALECTS = {
    Shell.SH: Dialect("export {name}={value};", quote, "unset {names};"),
    Shell.FISH: Dialect("set -gx {name} {value};", quote_fish, "set -e {names};"),
    Shell.NU: Dialect(
        "  {name}: {value}",
        quote_nu,
        "hide-env --ignore-errors {names}",
        before=("load-env {",),
        after=("}",),
    ),
    Shell.DOTENV: Dialect("{name}={value}", quote_dotenv, None),
}


@click.command(name="env", epilog=EXAMPLES)
@click.option(
    "--shell",
    type=click.Choice([shell.value for shell in Shell]),
    help="Output syntax.  [default: $SHELL if that is fish or nu, otherwise sh]",
)
@click.option(
    "--host",
    envvar="CLAUDE_PROXY_HOST",
    show_envvar=True,
    default=DEFAULT_HOST,
    show_default=True,
    help="The proxy's address, as seen by clients.",
)
@click.option(
    "--port",
    envvar="CLAUDE_PROXY_PORT",
    show_envvar=True,
    type=click.IntRange(1, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="The proxy's port.",
)
@confdir_option
@click.option("--java", is_flag=True, help="Include Java, which then prints a line at each start.")
@click.option(
    "--comments",
    is_flag=True,
    help="Say for each variable which program reads it, and why it is set.",
)
@click.option("--unset", is_flag=True, help="Print the command that unsets the variables.")
def command(
    *,
    shell: str | None,
    host: str,
    port: int,
    confdir: Path,
    java: bool,
    comments: bool,
    unset: bool,
) -> None:
    """Print the variables that make a client use the proxy."""
    chosen = Shell(shell) if shell else shell_of(os.environ.get("SHELL", ""))
    proxy = _reached_at(host, port)
    if unset:
        names = [variable.name for variable in _variables(proxy, confdir, java=java)]
        click.echo(unsetting(chosen, names))
        return
    # Created if the proxy has not been started yet, otherwise brought up to date.
    authority = CertificateAuthority.load_or_create(confdir)
    authority.write_bundle()
    if java:
        authority.write_java_truststore()
    found = _variables(proxy, confdir, java=java)
    lines = commented(chosen, found) if comments else assignments(chosen, found)
    # All or nothing: half of the variables would be worse than an error.
    click.echo("\n".join(lines))


def shell_of(path: str) -> Shell:
    """Return the dialect of the shell at `path`."""
    name = path.rpartition("/")[2]
    return Shell(name) if name in (Shell.FISH, Shell.NU) else Shell.SH


def assignments(shell: Shell, found: Iterable[Variable]) -> Iterator[str]:
    """Yield the lines that set the variables."""
    if shell is Shell.JSON:
        yield json.dumps({variable.name: variable.value for variable in found}, indent=2)
        return
    dialect = DIALECTS[shell]
    yield from dialect.before
    yield from (_assignment(dialect, variable) for variable in found)
    yield from dialect.after


def commented(shell: Shell, found: Iterable[Variable]) -> Iterator[str]:
    """Yield the same lines, each after a comment that says who reads the variable and why."""
    if shell is Shell.JSON:
        raise click.UsageError("JSON has no comments: drop --comments")
    dialect = DIALECTS[shell]
    yield from dialect.before
    for variable in found:
        yield f"# {variable.tool}: {variable.why}"
        yield _assignment(dialect, variable)
    yield from dialect.after


def _assignment(dialect: Dialect, variable: Variable) -> str:
    return dialect.assign.format(name=variable.name, value=dialect.quote(variable.value))


def unsetting(shell: Shell, names: Iterable[str]) -> str:
    """Return the line that unsets the variables."""
    dialect = DIALECTS.get(shell)
    if dialect is None or dialect.unset is None:
        raise click.UsageError(f"--unset is for shells, not for {shell}")
    return dialect.unset.format(names=" ".join(names))


def _variables(proxy: Authority, confdir: Path, *, java: bool) -> tuple[Variable, ...]:
    return variables(
        proxy,
        confdir / CERTIFICATE_FILE,
        confdir / BUNDLE_FILE,
        java_truststore=confdir / BUNDLE_P12_FILE if java else None,
    )


def _reached_at(host: str, port: int) -> Authority:
    try:
        proxy = Authority.of(host.removeprefix("[").removesuffix("]"), port)
    except ValueError as error:
        raise ConfigError(
            str(error),
            where="--host or CLAUDE_PROXY_HOST",
            fix="give the address at which clients reach the proxy",
        ) from error
    if proxy.address is None or not proxy.address.is_unspecified:
        return proxy
    # `serve --host 0.0.0.0` listens on every address, of which loopback always exists.
    return Authority.of("::1" if proxy.address == IPv6Address("::") else "127.0.0.1", port)
