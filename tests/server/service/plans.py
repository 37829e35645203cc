"""Plans that the tests of the service share."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from claude_proxy.config.settings import TcpListen, UnixListen
from claude_proxy.server.service.plan import Firewall, Scope, ServiceKind, ServicePlan
from claude_proxy.server.service.systemd import (
    files_of,
)

PROGRAM = ("/opt/pipx/bin/claude-proxy",)

SERVE = ServicePlan(ServiceKind.SERVE, Scope.SYSTEM, PROGRAM)
GATEWAY = ServicePlan(
    ServiceKind.GATEWAY,
    Scope.SYSTEM,
    PROGRAM,
    key_file="/etc/llm.key",
    key_option="--key-systemd",
    words=("--provider=anthropic",),
)
WALL = Firewall(frozenset({443, 80}), (ip_address("192.0.2.53"), ip_address("2001:db8::53")))


def activated(plan: ServicePlan, **more: Any) -> ServicePlan:
    """Return a plan whose sockets systemd makes: a port, and a file that others may use too."""
    places = (
        TcpListen("127.0.0.1", 9051),
        TcpListen("::1", 9051),
        UnixListen(Path(plan.names.runtime) / "p.sock"),
    )
    return replace(plan, activated=True, listen=places, shared=True, **more)


ALL = {
    "serve": SERVE,
    "gateway": GATEWAY,
    "serve for a user": replace(SERVE, scope=Scope.USER),
    "gateway for a user": replace(GATEWAY, scope=Scope.USER),
    "activated": activated(SERVE),
    "activated gateway": activated(GATEWAY),
    "activated for a user": activated(replace(SERVE, scope=Scope.USER)),
    "behind a packet filter": replace(SERVE, firewall=WALL),
    "gateway behind a packet filter": replace(GATEWAY, firewall=Firewall()),
    "for other machines": replace(SERVE, firewall=WALL, remote=True),
    "several workers": replace(SERVE, workers=4, connections=10_000, grace_s=90.0),
    "files elsewhere": replace(SERVE, writable=("/var/log/a b%", "/srv/x")),
}


type Values = dict[str, list[str]]


def rendered(plan: ServicePlan) -> dict[str, str]:
    return {unit.name: unit.text for unit in files_of(plan)}


def values_of(text: str) -> Values:
    found: Values = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def service_of(plan: ServicePlan) -> Values:
    return values_of(rendered(plan)[plan.names.service])
