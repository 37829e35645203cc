"""Spells a `Rule` again: as JSON for programs, or as the line of an allowlist that it came from.

What it writes, `rule_reader` reads back to the same rule; a test holds both to that. Pure.
"""

import json
import re
from typing import Any

from claude_proxy.policy import Rule, Scheme, Tls

_DEFAULT_PORTS = {Scheme.HTTPS: frozenset({443}), Scheme.HTTP: frozenset({80})}

# What no reader of YAML takes for anything but a text: methods, one long word, a name with dots.
_is_plain = re.compile(
    r"(?!(?:TRUE|FALSE|NULL|YES|OFF)\Z)[A-Z]{3,}|[a-z]{6,}|[a-z][a-z0-9-]*(\.[a-z0-9-]+)+"
).fullmatch


def facts_of(rule: Rule) -> dict[str, Any]:
    """Return every field of a rule, defaults too, as JSON spells it; null stands for all."""
    return {
        "host": rule.name,
        "scheme": rule.scheme,
        "ports": None if rule.ports is None else sorted(rule.ports),
        "methods": None if rule.methods is None else sorted(rule.methods),
        "paths": None if rule.paths is None else [glob.text for glob in rule.paths],
        "tls": rule.tls,
        "addresses": [str(network) for network in rule.addresses],
        "note": rule.note,
        "source": str(rule.source),
    }


def entry_of(rule: Rule) -> str:
    """Return a rule of `allow` as one line of an allowlist, without what goes without saying."""
    facts = facts_of(rule)
    said = {"host": facts.pop("host")}
    if rule.scheme is Scheme.HTTP:
        said["scheme"] = facts["scheme"]
    if rule.scheme is not None and rule.ports != _DEFAULT_PORTS[rule.scheme]:
        said["ports"] = facts["ports"]
    if rule.tls is Tls.PASSTHROUGH:
        said["tls"] = facts["tls"]
    for name in ("methods", "paths", "addresses", "note"):
        if facts[name]:
            said[name] = facts[name]
    if len(said) == 1:
        return _flow(rule.name)
    return "{" + ", ".join(f"{name}: {_flow(value)}" for name, value in said.items()) + "}"


def _flow(value: Any) -> str:
    """Return a value in YAML's flow style, in quotes wherever plain could be misread."""
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, int) or _is_plain(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
