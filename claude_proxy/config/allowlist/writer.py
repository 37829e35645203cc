"""Rule writer: rules and API restrictions as JSON, or as the entries of an allowlist.

The readers read what it writes back to the same values. Pure.
"""

import json
from collections.abc import Iterable
from typing import Any

from claude_proxy.config.allowlist.messages import ALL, ALLOWLISTED, NONE
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.messages.destinations import DestinationScope
from claude_proxy.policy.messages.restrictions import MIB, ApiRestrictions
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme, Rule, RuleScheme, Tls

_DEFAULT_PORTS: dict[RuleScheme, frozenset[int]] = {
    Scheme.HTTPS: frozenset({443}),
    Scheme.HTTP: frozenset({80}),
}

_LONG = 5  # items, from which on each has a line of its own

# What no reader of YAML takes for anything but a text: methods, one long word, a name with dots.
_is_plain = lazy_pattern(
    r"(?!(?:TRUE|FALSE|NULL|YES|OFF)\Z)[A-Z]{3,}|[a-z]{6,}|[a-z][a-z0-9-]*(\.[a-z0-9-]+)+"
).fullmatch


def facts_of(rule: Rule) -> dict[str, Any]:
    """Return every field of a rule, defaults too, as JSON; null means every value."""
    return {
        "host": rule.name,
        "scheme": rule.scheme,
        "ports": None if rule.ports is None else sorted(rule.ports),
        "methods": None if rule.methods is None else sorted(rule.methods),
        "paths": None if rule.paths is None else [glob.text for glob in rule.paths],
        "tls": None if rule.scheme is RawScheme.TCP else rule.tls,  # nobody looks at it there
        "addresses": [str(network) for network in rule.addresses],
        "note": rule.note,
        "ask": rule.asks,
        "source": str(rule.source),
    }


def entry_of(rule: Rule) -> str:
    """Return a rule of `allow` as one line of an allowlist, without defaults."""
    facts = facts_of(rule)
    said = {"host": facts.pop("host")}
    if rule.scheme not in {None, Scheme.HTTPS}:
        said["scheme"] = facts["scheme"]
    if rule.scheme is not None and rule.ports != _DEFAULT_PORTS.get(rule.scheme):
        said["ports"] = facts["ports"]
    if rule.tls is Tls.PASSTHROUGH:
        said["tls"] = facts["tls"]
    for name in ("methods", "paths", "addresses", "note"):
        if facts[name]:
            said[name] = facts[name]
    if rule.asks:
        said["ask"] = True
    if len(said) == 1:
        return _flow(rule.name)
    return "{" + ", ".join(f"{name}: {_flow(value)}" for name, value in said.items()) + "}"


def facts_of_narrowing(narrowing: ApiRestrictions) -> dict[str, Any]:
    """Return every key of an entry of `anthropic`, as the allowlist spells it."""
    paths = None if narrowing.paths is None else [glob.text for glob in narrowing.paths]
    return {
        "hosts": [str(pattern) for pattern in narrowing.patterns],
        "ports": None if narrowing.ports is None else sorted(narrowing.ports),
        "paths": _limit(paths),
        "models": _limit(narrowing.models),
        "beta": _limit(narrowing.beta),
        "server_tools": _limit(narrowing.server_tools),
        "mcp_servers": _reach(narrowing.mcp_servers),
        "sources": _reach(narrowing.sources),
        "max_body": _size(narrowing.max_bytes),
        "source": str(narrowing.source),
    }


def narrowing_entry_of(narrowing: ApiRestrictions) -> list[str]:
    """Return an entry of `anthropic` as lines of an allowlist, with what is `all`, too."""
    facts = facts_of_narrowing(narrowing)
    del facts["source"]
    if narrowing.ports is None:
        del facts["ports"]
    lines = []
    for name, value in facts.items():
        if isinstance(value, str):
            lines.append(f"{name}: {value}")
        elif len(value) < _LONG:
            lines.append(f"{name}: {_flow(value)}")
        else:
            lines += [f"{name}:", *(f"- {_flow(item)}" for item in value)]
    return [f"{'  ' if at else '- '}{line}" for at, line in enumerate(lines)]


def _limit(values: Iterable[str] | None) -> list[str] | str:
    return ALL if values is None else list(values) or NONE


def _reach(reach: DestinationScope) -> list[str] | str:
    if reach.every:
        return ALL
    if not reach.hosts:
        return ALLOWLISTED if reach.allowlisted else NONE
    return [*([ALLOWLISTED] if reach.allowlisted else []), *map(str, reach.hosts)]


def _size(size: int) -> str:
    return f"{size // MIB}M" if size % MIB == 0 else str(size)


def _flow(value: Any) -> str:
    """Return a value in YAML's flow style, in quotes wherever plain could be misread."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, int) or _is_plain(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
