"""Short constructors of rules, requests and targets, for the tests of the policy."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from ipaddress import ip_network
from threading import get_ident

from claude_proxy.policy.decision import Decision
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, PathGlob
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import Rule, RuleScheme, Tls
from claude_proxy.wire.authority import Authority

NOWHERE = Location("allowlist.yaml", 1, 1)


def rule(
    host: str,
    *,
    scheme: RuleScheme | None = Scheme.HTTPS,
    ports: Iterable[int] | None = (443,),
    methods: Iterable[str] | None = None,
    paths: Iterable[str] | None = None,
    tls: Tls = Tls.INTERCEPT,
    addresses: Iterable[str] = (),
) -> Rule:
    return Rule(
        HostPattern.parse(host),
        scheme,
        None if ports is None else frozenset(ports),
        None if methods is None else frozenset(methods),
        None if paths is None else tuple(map(PathGlob.parse, paths)),
        tls,
        tuple(map(ip_network, addresses)),
        "",
        NOWHERE,
    )


def deny(
    host: str,
    *,
    scheme: RuleScheme | None = None,
    ports: Iterable[int] | None = None,
    methods: Iterable[str] | None = None,
    paths: Iterable[str] | None = None,
) -> Rule:
    return rule(host, scheme=scheme, ports=ports, methods=methods, paths=paths)


def http(host: str) -> Rule:
    return rule(host, scheme=Scheme.HTTP, ports=(80,))


def request(
    target: str,
    method: str = "GET",
    path: str = "/",
    *,
    scheme: Scheme = Scheme.HTTPS,
    host: str | None = None,
) -> Request:
    where = Authority.parse(target, default_port=443)
    claimed = where if host is None else Authority.parse(host, default_port=443)
    return Request(scheme, where, claimed, method, path)


def at(target: str) -> Authority:
    return Authority.parse(target, default_port=443)


def denied_for(decision: Decision) -> Reason:
    assert not decision.allowed
    return decision.reason


AMBIGUOUS = [
    "",
    "a",
    "http://evil/",
    "//",
    "/a//b",
    "/a/..",
    "/a/../b",
    "/a/./b",
    "/a/.",
    "/a/%2e%2e/b",
    "/a/%2E./b",
    "/a/.%2e/b",
    "/a/%252e%252e/b",
    "/a/%2fb",
    "/a/%2Fb",
    "/a/%5cb",
    "/a/%5C..%5Cb",
    "/a/\\..\\b",
    "/a/b;x=y",
    "/a/..;/b",
    "/a/%3bx",
    "/a/b?x",
    "/a/b#x",
    "/a/%3fx",
    "/a/%23x",
    "/a/%00",
    "/a/\0",
    "/a/%0d%0aX",
    "/a/\r\nX",
    "/a/%7f",
    "/a/ b",
    "/a/%",
    "/a/%2",
    "/a/%zz",
    "/a/%u002e%u002e/b",
    "/a/%c0%ae%c0%ae/b",
    "/a/%C0%AF",
    "/a/%e0%80%ae/b",
    "/a/%f0%80%80%ae/b",
    "/a/%ef%bc%8e%ef%bc%8e/b",
    "/a/\uff0e\uff0e/b",
    "/a/\u00e9",
    "/a/\udc80",
    "/%61/b",
    "/a/%41%7A",
    "/a/%2d%5f%7e%30",
]


def lines_run(act: Callable[[], object]) -> int:
    """Count the lines of Python that `act` runs: work that does not depend on the machine."""
    _make_data_classes()
    monitoring = sys.monitoring
    tool = next(number for number in (3, 4) if monitoring.get_tool(number) is None)
    counted, here = [], get_ident()

    def count(*where: object) -> None:
        if get_ident() == here:  # other tests may have left a thread behind, which ends by itself
            counted.append(where)

    monitoring.use_tool_id(tool, "lines_run")
    try:
        monitoring.register_callback(tool, monitoring.events.LINE, count)
        monitoring.set_events(tool, monitoring.events.LINE)
        act()
        monitoring.set_events(tool, monitoring.events.NO_EVENTS)
    finally:
        monitoring.free_tool_id(tool)
    return len(counted)


def _make_data_classes() -> None:
    """Have all methods generated, so that no work is counted which only first instances cause."""
    modules = [
        module
        for name, module in sys.modules.items()
        if name.startswith(("claude_proxy.policy.", "claude_proxy.wire."))
    ]
    for thing in [thing for module in modules for thing in vars(module).values()]:
        if isinstance(thing, type) and is_dataclass(thing):
            fields(thing)
