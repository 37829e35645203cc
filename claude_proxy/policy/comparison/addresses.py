"""Addresses that names may lead to, and which ones another policy adds.

A public address needs no rule of its own unless it is this machine's, and a denied network is
denied to every name. Pure.
"""

from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address

from claude_proxy.policy.comparison.host_tree import HostNode, HostSet, host_sets, network_nodes
from claude_proxy.policy.comparison.openings import Addresses
from claude_proxy.policy.policy import AddressOwner, Policy
from claude_proxy.policy.rules import RawScheme, Rule
from claude_proxy.wire.address import Address, AddressKind, Network, effective, kind_of
from claude_proxy.wire.authority import Authority

type _May = Callable[[Address, AddressOwner], bool]


def more_addresses(
    old: Policy, new: Policy, target: Authority, rules: Iterable[Rule]
) -> Iterator[Addresses]:
    """Yield the addresses that a name may lead to by `new`, and not by `old`.

    `rules` are those of both for the name. Only what has to be named: see `more_for_every_name`.
    """
    named = {network for rule in rules for network in rule.addresses}
    if not named:
        return
    nodes = network_nodes({*named, *_denied_networks(old), *_denied_networks(new)})
    before, after = _may(old, target), _may(new, target)

    def is_more(address: Address, owner: AddressOwner) -> bool:
        return after(address, owner) and not before(address, owner)

    others = _sets(nodes, lambda address: _is_named(address) and is_more(address, _OTHER))
    if others:
        yield Addresses(others)
    own = _sets(
        nodes,
        lambda address: (
            is_more(address, OWN) and not (_is_named(address) and is_more(address, _OTHER))
        ),
    )
    if own:
        yield Addresses(own, own=True)


def more_for_every_name(old: Policy, new: Policy, port: int, *, raw: bool) -> tuple[HostSet, ...]:
    """Return the networks that `old` denies to every name at a port, and `new` does not."""
    denied, still = _denials_at(old, port, raw=raw), _denials_at(new, port, raw=raw)
    if set(denied) <= set(still):
        return ()
    nodes = network_nodes({*denied, *still})

    def is_more(address: Address) -> bool:
        if effective(address) == address and kind_of(address) is not AddressKind.PUBLIC:
            return False
        gone = any(address in network for network in denied)
        return gone and not any(address in network for network in still)

    return _sets(nodes, is_more)


def denied_ports(policies: Iterable[Policy]) -> Iterator[frozenset[int]]:
    """Yield the sets of ports for which networks are denied."""
    for policy in policies:
        for rule in policy.deny:
            if rule.pattern.network is not None and not rule.limited and rule.ports is not None:
                yield rule.ports


_OTHER, OWN = AddressOwner.OTHER, AddressOwner.THIS_MACHINE


def _may(policy: Policy, target: Authority) -> _May:
    return lambda address, owner: policy.decide_address(target, address, owner).allowed


def _is_named(address: Address) -> bool:
    return kind_of(address) is not AddressKind.PUBLIC


def _sets(nodes: Iterable[HostNode], is_more: Callable[[Address], bool]) -> tuple[HostSet, ...]:
    return tuple(
        host_sets([n for n in nodes if n.host is not None and is_more(ip_address(n.host))])
    )


def _denied_networks(policy: Policy) -> Iterator[Network]:
    for rule in policy.deny:
        if rule.pattern.network is not None and not rule.limited:
            yield rule.pattern.network


def _denials_at(policy: Policy, port: int, *, raw: bool) -> list[Network]:
    return [
        rule.pattern.network
        for rule in policy.deny
        if rule.pattern.network is not None
        and not rule.limited
        and (rule.ports is None or port in rule.ports)
        and (raw or rule.scheme is not RawScheme.TCP)
    ]
