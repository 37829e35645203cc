"""Rules for services of this machine's own loopback that one run was given by name and port.

Laws kept: default-deny, one judge. Such a grant is a rule like any other, with a source of its own:
a deny rule wins over it, and the addresses that its name may have are those of loopback alone.
What is spoken there is not looked at: clients inside call it by the name that they know. Pure.
"""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from claude_proxy.deferred.data_classes import replace
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.rules import RawScheme, Rule, Tls
from claude_proxy.wire.address import Address

NAME = "localhost"
SOURCE = Location("--forward", 1, 1)

LOOPBACK: tuple[Address, ...] = (ip_address("127.0.0.1"), ip_address("::1"))


def with_host_services(policy: Policy, ports: Iterable[int]) -> Policy:
    """Return a policy that also lets a run reach these ports of this machine's loopback."""
    rules = [_rule_for(port) for port in ports]
    return replace(policy, allow=(*policy.allow, *rules)) if rules else policy


def _rule_for(port: int) -> Rule:
    return Rule(
        pattern=HostPattern.parse(NAME),
        scheme=RawScheme.TCP,
        ports=frozenset({port}),
        methods=None,
        paths=None,
        tls=Tls.INTERCEPT,
        addresses=tuple(map(ip_network, LOOPBACK)),
        note="a service of this machine that the run was given",
        source=SOURCE,
        opaque=True,  # HTTP too: what a local service does with a Host field is its own affair
    )
