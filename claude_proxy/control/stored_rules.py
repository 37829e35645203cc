"""Rules as JSON, as the store of grants keeps them.

Fail closed: what cannot be read whole is a ValueError, never a wider rule. Pure.
"""

import json
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, PathGlob, PatternKind
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme, Rule, RuleScheme, Tls

_FIELDS = frozenset({"host", "scheme", "ports", "methods", "paths", "tls", "addresses", "note"})


def encode(rules: Iterable[Rule]) -> str:
    """Return rules as JSON, without where they are from."""
    return json.dumps([_encoded(rule) for rule in rules], separators=(",", ":"))


def decode(text: str, source: Location) -> tuple[Rule, ...]:
    """Return the rules of a JSON text, as from `source`; ValueError if anything is odd."""
    found = json.loads(text)
    if not isinstance(found, list) or not found:
        raise ValueError("no list of rules")
    return tuple(_decoded(each, source) for each in found)


def _encoded(rule: Rule) -> dict[str, Any]:
    every = rule.pattern.kind is PatternKind.EVERY
    return {
        "host": None if every else str(rule.pattern),
        "scheme": None if rule.scheme is None else rule.scheme.value,
        "ports": None if rule.ports is None else sorted(rule.ports),
        "methods": None if rule.methods is None else sorted(rule.methods),
        "paths": None if rule.paths is None else [glob.text for glob in rule.paths],
        "tls": rule.tls.value,
        "addresses": [str(network) for network in rule.addresses],
        "note": rule.note,
    }


def _decoded(found: Any, source: Location) -> Rule:
    # Each field must be there: one that is missing would mean "every".
    if not isinstance(found, dict) or found.keys() != _FIELDS:
        raise ValueError("a rule with other fields")
    host, ports, methods, paths = (found[name] for name in ("host", "ports", "methods", "paths"))
    return Rule(
        pattern=HostPattern.every() if host is None else HostPattern.parse(_text(host)),
        scheme=None if found["scheme"] is None else _scheme(_text(found["scheme"])),
        ports=None if ports is None else frozenset(map(_number, _items(ports))),
        methods=None if methods is None else frozenset(map(_text, _items(methods))),
        paths=None if paths is None else tuple(PathGlob.parse(_text(each)) for each in paths),
        tls=Tls(found["tls"]),
        addresses=tuple(ip_network(_text(each)) for each in _items(found["addresses"])),
        note=_text(found["note"]),
        source=source,
    )


def _scheme(text: str) -> RuleScheme:
    return RawScheme.TCP if text == RawScheme.TCP.value else Scheme(text)


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a rule with a value that is no list")  # noqa: TRY004 - one kind of error
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a rule with a value that is no text")  # noqa: TRY004 - as above
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("a rule with a port that is no number")  # noqa: TRY004 - as above
    return value
