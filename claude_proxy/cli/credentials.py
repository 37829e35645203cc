"""`claude-proxy credentials`: list credentials and pins, hash a login, forget a learned pin.

Keeps "secrets stay outside": no value is printed, not even in part, and a login is read from
standard input, never from the command line, which every user of the machine can read.
"""

import json
import os
import secrets
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, override

import click

from claude_proxy.cli import completers, paths
from claude_proxy.cli.groups import Group
from claude_proxy.cli.shared_options import allowlist_option, confdir_option, statedir_option
from claude_proxy.config import policy_files
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.policy.credentials.binding import Binding, Injection, LoginPin
from claude_proxy.policy.credentials.login_hash import hash_of, login_of
from claude_proxy.policy.credentials.sources import EnvironmentSource, SecretSource, source_name
from claude_proxy.vault import sources
from claude_proxy.vault.pins import PinStore

EXAMPLES = """\b
Examples:
  claude-proxy credentials                   each credential, and whether it is available now
  claude-proxy credentials hash              print a login's hash, for `pin:` in the allowlist
  pass show github | head -n 1 | claude-proxy credentials hash
  claude-proxy credentials forget github     pin the next login that is used

Variables are read from this shell's environment, which may differ from the proxy's.
"""

_SALT_BYTES = 16
_LONGEST = 8192

_statedir_option = statedir_option("Directory of the pinned logins.")


class _Group(Group):
    """A group whose default command is `list`."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        helped = set(ctx.help_option_names)
        completing = not args and ctx.resilient_parsing
        if not completing and (not args or (args[0].startswith("-") and args[0] not in helped)):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Group, epilog=EXAMPLES)
def command() -> None:
    """Show the credentials, hash a login, or forget a pinned one."""


@command.command("list")
@allowlist_option("The allowlist.  [default: allowlist.yaml in --confdir, else the shipped one]")
@confdir_option("the allowlist")
@_statedir_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(
    *,
    allowlist_file: Path | None,
    confdir: Path | None,
    statedir: Path | None,
    as_json: bool,
) -> int:
    """List the credentials."""
    file = allowlist_file or paths.allowlist_path(confdir or paths.default_confdir())
    policy = policy_files.load(file, confdir or paths.default_confdir()).policy
    store = PinStore(statedir or paths.default_statedir())
    # A credential command must not see the values of other credentials.
    withheld = {
        each.use.source.name
        for each in policy.credentials
        if isinstance(each.use.source, EnvironmentSource)
    }
    found = [_facts_of(each, store, withheld) for each in policy.credentials]
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif found:
        click.echo("\n".join(line for facts in found for line in _lines_of(facts)))
    else:
        click.echo(f"no credentials in {file}")
    return 0


@command.command("hash")
def hash_() -> int:
    """Print the hash of a login.

    Reads the login from standard input; put the output after `pin:` in the allowlist.
    """
    text = _asked() if sys.stdin.isatty() else sys.stdin.buffer.read(_LONGEST + 1)
    lines = [line for line in text.splitlines() if line.strip()]
    login = login_of(lines[0]) if lines else b""
    fault = None if login else "there is no login"
    if len(lines) > 1:
        fault = "there is more than one line"
    if len(text) > _LONGEST:
        fault = "the login is too long"
    if fault is not None:
        fix = "enter the key, token or password alone, on one line"
        raise ConfigError(fault, where="standard input", fix=fix)
    click.echo(f'pin: "{hash_of(login, secrets.token_bytes(_SALT_BYTES))}"')
    return 0


@command.command()
@click.argument("name", shell_complete=completers.pinned)
@confdir_option("config.yaml")
@_statedir_option
def forget(name: str, *, confdir: Path | None, statedir: Path | None) -> int:
    """Forget a pinned login.

    The next login that is used is pinned instead. A running proxy notices within a second.
    """
    del confdir  # its config.yaml names the default of --statedir
    store = PinStore(statedir or paths.default_statedir())
    try:
        known = store.read().by_name
        gone = name in known and store.forget(name)
    except OSError as error:
        raise ClaudeProxyError(
            f"the pins cannot be changed: {(error.strerror or type(error).__name__).lower()}",
            where=str(store.path),
            fix="run this command as the user that runs the proxy",
        ) from error
    if not gone:
        names = ", ".join(sorted(known))
        raise ClaudeProxyError(
            f'no login is pinned for "{harmless(name)}"',
            where=str(store.path),
            fix=f"use one of: {names}" if names else "nothing to do: no login is pinned",
        )
    click.echo(f"forgotten: the next login used for {name} will be pinned")
    return 0


def _asked() -> bytes:
    text: str = click.prompt("Login", hide_input=True, err=True, prompt_suffix=" (not shown): ")
    return text.encode("utf-8", "surrogateescape")


def _facts_of(binding: Binding, store: PinStore, withheld: Collection[str]) -> dict[str, Any]:
    use = binding.use
    facts: dict[str, Any] = {
        "name": binding.name,
        "hosts": [str(pattern) for pattern in binding.patterns],
        "ports": sorted(binding.ports),
        "kind": "inject" if isinstance(use, Injection) else "pin",
        "form": use.form.value if isinstance(use, Injection) else None,
        "source": None,
        "available": None,
        "fault": None,
        "pinned": None,
        "pinned_since": None,
        "declared": str(binding.source),
    }
    if use.source is not None:
        facts["source"] = source_name(use.source)
        facts["fault"] = _fault_of(use.source, withheld)
        facts["available"] = facts["fault"] is None
    if isinstance(use, LoginPin):
        facts |= _facts_of_pin(binding.name, use, store)
    return facts


def _facts_of_pin(name: str, use: LoginPin, store: PinStore) -> dict[str, Any]:
    if not use.learn:
        return {"pinned": len(use.digests) + (use.source is not None)}
    try:
        pin = store.read().by_name.get(name)
    except ConfigError as error:
        return {"source": "first use", "available": False, "fault": error.what}
    return {
        "source": "first use",
        "pinned": int(pin is not None),
        "pinned_since": None if pin is None else pin.since,
    }


def _fault_of(source: SecretSource, withheld: Collection[str]) -> str | None:
    try:
        sources.read(source, os.environ, withheld)
    except ConfigError as error:
        return error.what
    return None


def _lines_of(facts: dict[str, Any]) -> Iterator[str]:
    ports = "" if facts["ports"] == [443] else f" (ports {', '.join(map(str, facts['ports']))})"
    yield f"{facts['name']}: {', '.join(facts['hosts'])}{ports}"
    form = f" as {facts['form']}" if facts["form"] else ""
    yield f"  kind:    {facts['kind']}{form} ({facts['declared']})"
    if facts["source"] is not None:
        yield f"  source:  {facts['source']}"
    if facts["fault"] is not None:
        yield f"  now:     unavailable: {facts['fault']}"
    elif facts["available"]:
        yield "  now:     available"
    if facts["pinned_since"] is not None:
        yield f"  pinned:  since {facts['pinned_since']}"
    elif facts["pinned"] == 0:
        yield "  pinned:  nothing yet; the first login used will be"
    elif facts["kind"] == "pin" and facts["available"] is None:
        count = facts["pinned"]
        yield f"  pinned:  {count} given {'hash' if count == 1 else 'hashes'}"
