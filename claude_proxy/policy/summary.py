"""Summaries: a credential or an API restriction as one line of text, for logs and `check`.

Secrets stay outside: a line names the place of a secret, and contains no value, hash, placeholder
or arguments of a command. Pure.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from claude_proxy.policy.credentials.binding import (
    HTTPS_PORT,
    Binding,
    DatabaseLogin,
    Form,
    Injection,
    LoginMethod,
    LoginPin,
)
from claude_proxy.policy.credentials.sources import source_name
from claude_proxy.policy.messages.destinations import DestinationScope
from claude_proxy.policy.messages.restrictions import MIB, ApiRestrictions

_NAMED = 4  # values of a list to show; the rest are counted


def describe_credential(binding: Binding) -> str:
    """Return the line for a credential: its hosts, and how it is used there."""
    return f"credential {binding.name} for {_hosts(binding)}: {describe_use(binding.use)}"


def hidden_changes(old: Iterable[Binding], new: Iterable[Binding]) -> Iterator[str]:
    """Yield a line for each credential with a change that its description does not show."""
    known = {binding.name: binding for binding in old}
    for binding in new:
        was = known.get(binding.name)
        if was is None or replace(was, source=binding.source) == binding:
            continue
        if describe_credential(was) == describe_credential(binding):
            yield f"credential {binding.name} (a setting that is not shown here)"


def describe_use(use: Injection | LoginPin) -> str:
    """Return how a credential is injected, or which login of the client is allowed."""
    if isinstance(use, Injection):
        form = {Form.FIELD: f"field {use.name}", Form.BASIC: f"basic as {use.user}"}
        if use.database is not None:
            form[Form.POSTGRES] = f"postgres as {use.user}{_of_database(use.database)}"
        return f"inject {form.get(use.form, use.form.value)} from {source_name(use.source)}"
    if use.source is not None:
        return f"pin from {source_name(use.source)}"
    return "pin learn" if use.learn else f"pin {len(use.digests)} by hash"


def _of_database(login: DatabaseLogin) -> str:
    """Return what differs from the defaults: the database, TLS, and weaker ways to log in."""
    words = [f" to {login.name}"] if login.name else []
    words += [] if login.tls else [" without TLS"]
    if weak := login.methods - {LoginMethod.SCRAM}:
        words.append(f" (or {', '.join(sorted(weak))})")
    return "".join(words)


def describe_restrictions(restrictions: ApiRestrictions) -> str:
    """Return the line for restrictions of an API."""
    limits = describe_limits(restrictions)
    return f"{_head(restrictions)}; {limits}" if limits else _head(restrictions)


def describe_limits(restrictions: ApiRestrictions) -> str:
    """Return what restrictions limit, without their hosts."""
    words = []
    for name, values in _limits(restrictions).items():
        more = len(values) - _NAMED
        shown = [*values[:_NAMED], f"and {more} more"] if more > 1 else values
        words.append(f"{name} {', '.join(shown)}")
    return "; ".join(words)


def restriction_lines(restrictions: ApiRestrictions) -> list[str]:
    """Return a line for each value, so that a change affects only the lines of its values."""
    limits = _limits(restrictions).items()
    return [f"{_head(restrictions)} {name} {value}" for name, values in limits for value in values]


def _head(restrictions: ApiRestrictions) -> str:
    return f"anthropic {_hosts(restrictions)}"


def _limits(restrictions: ApiRestrictions) -> dict[str, list[str]]:
    lists: dict[str, Iterable[object] | None] = {
        "paths": restrictions.paths,
        "models": restrictions.models,
        "beta": restrictions.beta,
        "server_tools": restrictions.server_tools,
        "mcp_servers": _scope(restrictions.mcp_servers),
        "sources": _scope(restrictions.sources),
        "max_body": [_size(restrictions.max_bytes)],
    }
    return {
        name: list(map(str, values)) or ["none"]
        for name, values in lists.items()
        if values is not None
    }


def _hosts(entry: Binding | ApiRestrictions) -> str:
    hosts = ",".join(map(str, entry.patterns))
    if entry.ports is None or (isinstance(entry, Binding) and entry.ports == {HTTPS_PORT}):
        return hosts
    return f"{hosts} ports {','.join(map(str, sorted(entry.ports)))}"


def _scope(scope: DestinationScope) -> list[object] | None:
    if scope.every:
        return None
    return [*(["allowlisted"] if scope.allowlisted else []), *scope.hosts]


def _size(size: int) -> str:
    return f"{size // MIB}M" if size % MIB == 0 else str(size)
