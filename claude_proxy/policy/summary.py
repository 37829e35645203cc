"""Spells in one line what a credential is, and what narrows an API; for logs and for `check`.

Law kept: secrets stay outside (9). Where a secret is kept is told, what it is never is: neither a
hash of it, nor the arguments of a command, nor a placeholder. Pure.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from claude_proxy.policy.credentials.binding import HTTPS_PORT, Binding, Form, Injection, LoginPin
from claude_proxy.policy.credentials.sources import source_name
from claude_proxy.policy.messages.destinations import DestinationScope
from claude_proxy.policy.messages.restrictions import MIB, ApiRestrictions

_NAMED = 4  # values of a list that are spelled out; the rest is counted


def describe_credential(binding: Binding) -> str:
    """Return which hosts a credential is for, and what becomes of it there."""
    return f"credential {binding.name} for {_hosts(binding)}: {describe_use(binding.use)}"


def hidden_changes(old: Iterable[Binding], new: Iterable[Binding]) -> Iterator[str]:
    """Yield a line for each credential that has changed in what no line of it tells."""
    known = {binding.name: binding for binding in old}
    for binding in new:
        was = known.get(binding.name)
        if was is None or replace(was, source=binding.source) == binding:
            continue
        if describe_credential(was) == describe_credential(binding):
            yield f"credential {binding.name} in what is not shown"


def describe_use(use: Injection | LoginPin) -> str:
    """Return how a credential gets into a request, or which of the client's passes."""
    if isinstance(use, Injection):
        form = {Form.FIELD: f"field {use.name}", Form.BASIC: f"basic as {use.user}"}
        return f"inject {form.get(use.form, use.form.value)} from {source_name(use.source)}"
    if use.source is not None:
        return f"pin from {source_name(use.source)}"
    return "pin learn" if use.learn else f"pin {len(use.digests)} by hash"


def describe_restrictions(narrowing: ApiRestrictions) -> str:
    """Return what requests to an API are limited to, without what is not limited."""
    words = [_head(narrowing)]
    for name, values in _limits(narrowing).items():
        more = len(values) - _NAMED
        shown = [*values[:_NAMED], f"and {more} more"] if more > 1 else values
        words.append(f"{name} {', '.join(shown)}")
    return "; ".join(words)


def restriction_lines(narrowing: ApiRestrictions) -> list[str]:
    """Return a line for each value, so that what changes can be told without the rest."""
    limits = _limits(narrowing).items()
    return [f"{_head(narrowing)} {name} {value}" for name, values in limits for value in values]


def _head(narrowing: ApiRestrictions) -> str:
    return f"anthropic {_hosts(narrowing)}"


def _limits(narrowing: ApiRestrictions) -> dict[str, list[str]]:
    lists: dict[str, Iterable[object] | None] = {
        "paths": narrowing.paths,
        "models": narrowing.models,
        "beta": narrowing.beta,
        "server_tools": narrowing.server_tools,
        "mcp_servers": _reach(narrowing.mcp_servers),
        "sources": _reach(narrowing.sources),
        "max_body": [_size(narrowing.max_bytes)],
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


def _reach(reach: DestinationScope) -> list[object] | None:
    if reach.every:
        return None
    return [*(["allowlisted"] if reach.allowlisted else []), *reach.hosts]


def _size(size: int) -> str:
    return f"{size // MIB}M" if size % MIB == 0 else str(size)
