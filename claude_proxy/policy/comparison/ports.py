"""Parts of all ports that no rule tells apart, and one port of each. Pure."""

from collections.abc import Collection, Iterable
from itertools import chain

from claude_proxy.policy.comparison.values import PortSet
from claude_proxy.policy.rules import WEB_PORTS
from claude_proxy.wire.authority import MAX_PORT

type Part = tuple[frozenset[int], bool]  # ports, or all but these


def parts_of_ports(sets: Iterable[frozenset[int]]) -> list[Part]:
    """Return all ports in parts that none of `sets` tells apart, the unnamed ones last."""
    members: dict[int, int] = {}
    for at, ports in enumerate(dict.fromkeys(sets)):
        for port in ports:
            members[port] = members.get(port, 0) | 1 << at
    parts: dict[tuple[int, bool], set[int]] = {}
    for port, member in members.items():
        # Nothing but TLS and HTTP goes to these.
        parts.setdefault((member, port in WEB_PORTS), set()).add(port)
    named = [(frozenset(ports), False) for ports in parts.values()]
    return [*named, *([(frozenset(members), True)] if len(members) < MAX_PORT else [])]


def port_of(part: Part) -> int:
    """Return one port of a part."""
    ports, others = part
    if not others:
        return min(ports)
    # A web port only if no other one is left.
    every = chain(range(MAX_PORT, max(WEB_PORTS), -1), range(1, max(WEB_PORTS) + 1))
    unnamed = (port for port in every if port not in ports)
    first = next(unnamed)
    if first not in WEB_PORTS:
        return first
    return next((port for port in unnamed if port not in WEB_PORTS), first)


def joined(parts: list[Part], some: Collection[int]) -> PortSet:
    """Return the ports of some parts, which are named by their places in the list."""
    last = len(parts) - 1
    if parts[last][1] and last in some:
        missing = (
            ports for at, (ports, others) in enumerate(parts) if at not in some and not others
        )
        return PortSet(frozenset().union(*missing), others=True)
    return PortSet(frozenset().union(*(parts[at][0] for at in some)))
