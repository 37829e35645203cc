"""A small model of squid: the first line of `http_access` that matches decides.

Written from squid's documentation, apart from the converter, to check it.
"""

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import unquote

from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.wire.authority import Authority

DEFAULT_PORT = {"http": 80, "https": 443}


class Target(NamedTuple):
    """One request of a client."""

    scheme: str
    host: str
    port: int
    method: str
    path: str
    query: str = ""


class Acl(NamedTuple):
    """An access list: its type, and the values with their flags."""

    type: str
    values: Sequence[str]
    ignore_case: bool = False

    def text(self, name: str) -> str:
        """Return its line."""
        return f"acl {name} {self.type} {'-i ' if self.ignore_case else ''}{' '.join(self.values)}"


class Rule(NamedTuple):
    """A line of `http_access`."""

    allows: bool
    terms: Sequence[str]

    def text(self) -> str:
        """Return the line."""
        return f"http_access {'allow' if self.allows else 'deny'} {' '.join(self.terms)}"


def allows(acls: Mapping[str, Acl], rules: Sequence[Rule], target: Target, *, bumps: bool) -> bool:
    """Return whether squid lets the request through."""
    if target.scheme == "http":
        url = target.host if target.port == 80 else f"{target.host}:{target.port}"
        query = f"?{target.query}" if target.query else ""
        whole = f"http://{url}{target.path}{query}"
        return _decide(acls, rules, target, target.method, whole, target.path + query)
    tunnel = _decide(acls, rules, target, "CONNECT", f"{target.host}:{target.port}", None)
    if not tunnel or not bumps:
        return tunnel
    url = target.host if target.port == 443 else f"{target.host}:{target.port}"
    query = f"?{target.query}" if target.query else ""
    whole = f"https://{url}{target.path}{query}"
    return _decide(acls, rules, target, target.method, whole, target.path + query)


def _decide(
    acls: Mapping[str, Acl],
    rules: Sequence[Rule],
    target: Target,
    method: str,
    url: str,
    path: str | None,
) -> bool:
    for rule in rules:
        if all(_holds(acls, term, target, method, url, path) for term in rule.terms):
            return rule.allows
    return not rules[-1].allows


def _holds(
    acls: Mapping[str, Acl],
    term: str,
    target: Target,
    method: str,
    url: str,
    path: str | None,
) -> bool:
    name = term.removeprefix("!")
    return _matches(acls, name, target, method, url, path) is not term.startswith("!")


def _matches(
    acls: Mapping[str, Acl], name: str, target: Target, method: str, url: str, path: str | None
) -> bool:
    if name == "all":
        return True
    if name == "CONNECT":
        return method == "CONNECT"
    acl = acls[name]
    if acl.type.endswith("regex"):
        texts = {"dstdom_regex": target.host, "url_regex": unquote(url)}
        text = texts.get(acl.type, None if path is None else unquote(path))
        flags = re.IGNORECASE if acl.ignore_case else 0
        return text is not None and any(re.search(value, text, flags) for value in acl.values)
    tests = {
        "src": lambda _: True,  # the client for whom the file is imported
        "dstdomain": lambda value: _is_domain(target.host, value),
        "port": lambda value: _in_range(target.port, value),
        "method": lambda value: method == value,
        "dst": lambda value: _in_network(target.host, value),
    }
    return any(map(tests[acl.type], acl.values))


def _is_domain(host: str, value: str) -> bool:
    return f".{host}".endswith(value) if value.startswith(".") else host == value


def _in_range(port: int, value: str) -> bool:
    first, _, last = value.partition("-")
    return int(first) <= port <= int(last or first)


def _in_network(host: str, value: str) -> bool:
    try:
        return ip_address(host) in ip_network(value)
    except ValueError:
        return False


def policy_allows(policy: Policy, target: Target) -> bool:
    """Return whether a policy lets the request through: its tunnel, and itself."""
    authority = Authority.of(target.host, target.port)
    if not policy.decide_connect(authority).allowed:
        return False
    request = Request(
        Scheme(target.scheme), authority, authority, target.method, target.path, target.query
    )
    return policy.decide_request(request).allowed
