"""Difference of two policies: what one allows and the other does not, as rules that a person reads.

One judge: hosts, ports, methods and paths are cut into parts that no pattern of either policy tells
apart, and one question for each part stands for all of them. As policies have no regular
expressions, this is exact: no line means that nothing is opened. Pure.
"""

from collections.abc import Collection, Iterable, Iterator

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.comparison import addresses, openings
from claude_proxy.policy.comparison.apis import more_capabilities
from claude_proxy.policy.comparison.host_tree import (
    ALLOWED_NAMES,
    HostNode,
    HostSet,
    host_sets,
    host_tree,
)
from claude_proxy.policy.comparison.logins import database_logins_at, logins_at, more_logins
from claude_proxy.policy.comparison.openings import (
    Addresses,
    Capability,
    Login,
    Opening,
    Requests,
    Unseen,
    What,
)
from claude_proxy.policy.comparison.request_sets import more_requests
from claude_proxy.policy.comparison.sides import Host, Side, is_unseen
from claude_proxy.policy.comparison.values import Places, PortSet
from claude_proxy.policy.credentials.binding import SAME_ACCOUNTS
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import WEB_PORTS, RawScheme, RuleScheme
from claude_proxy.policy.summary import describe_limits
from claude_proxy.wire.authority import MAX_PORT, Authority


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes between two policies; empty: nothing."""

    opens: tuple[Opening, ...] = ()
    closes: tuple[Opening, ...] = ()


def difference(old: Policy, new: Policy) -> Difference:
    """Return what `new` allows and `old` does not, and the other way round."""
    return Difference(opened(old, new), opened(new, old))


def opened(old: Policy, new: Policy) -> tuple[Opening, ...]:
    """Return what `new` allows and `old` does not."""
    before, after = Side(old), Side(new)
    accounts = SAME_ACCOUNTS if old.credentials or new.credentials else ()
    nodes = host_tree((*before.patterns(), *after.patterns()), accounts)
    found: dict[tuple[What, Places], list[HostNode]] = {}
    for node in nodes:
        if node.host is not None:
            for what, places in _opened_at(node.host, before, after):
                found.setdefault((what, places), []).append(node)
    lines = [
        Opening(what, hosts, places)
        for (what, places), some in found.items()
        for hosts in host_sets(some)
    ]
    lines += _opened_to_names(old, new, nodes)
    return tuple(sorted(lines, key=lambda each: each.sort_key))


type _Found = Iterator[tuple[RuleScheme, What]]


def _opened_at(host: str, before: Side, after: Side) -> list[tuple[What, Places]]:
    """Return what is opened on one host, with the schemes and ports."""
    old, new = before.at(host), after.at(host)
    if old.says() == new.says() or not new.allow:
        return []
    parts = _parts_of_ports((*old.ports(), *new.ports()))
    found: dict[What, dict[RuleScheme, set[int]]] = {}
    for at, (ports, others) in enumerate(parts):
        port = _unnamed_port(ports) if others else min(ports)
        for scheme, what in _opened_on(Authority.of(host, port), old, new):
            found.setdefault(what, {}).setdefault(scheme, set()).add(at)
    return [
        (what, tuple((scheme, _joined(parts, some)) for scheme, some in sorted(places.items())))
        for what, places in found.items()
    ]


def _opened_on(target: Authority, old: Host, new: Host) -> _Found:
    """Yield what is opened on one host and port."""
    was = old.policy.decide_connect(target)
    now = new.policy.decide_connect(target)
    found = list(_opened_requests(target, old, new))
    found += _opened_tunnels(was, now)
    if now.allowed and not was.allowed and not found:
        found.append((_scheme_of(now), Unseen(openings.CONNECTION)))
    yield from found
    if not now.allowed:
        return
    yield from _opened_logins(target, old, new, was, now)
    yield from _opened_capabilities(target, old, new, was)
    scheme = _scheme_of(now)
    if target.address is None:
        rules = (*old.allow, *new.allow)
        for more in addresses.more_addresses(old.policy, new.policy, target, rules):
            yield scheme, more
    elif was.allowed and _is_of_this_machine(target, new) and not _is_of_this_machine(target, old):
        yield scheme, Unseen(openings.OWN_ADDRESS)


def _scheme_of(connect: Decision) -> RuleScheme:
    if connect.raw:
        return RawScheme.TCP
    return Scheme.HTTPS if connect.secure else Scheme.HTTP


def _opened_requests(target: Authority, old: Host, new: Host) -> _Found:
    for scheme in Scheme:
        sets = (each.requests(scheme, target.port) for each in (old, new))
        for methods, paths in more_requests(*sets):
            yield scheme, Requests(methods, paths)


def _opened_tunnels(was: Decision, now: Decision) -> _Found:
    """Yield the bytes that pass unseen, and did not."""
    if now.opaque and not was.opaque:
        yield RawScheme.TCP, Unseen(openings.OPAQUE)
    elif now.raw and not was.raw:
        yield RawScheme.TCP, Unseen(openings.TCP if now.secure else openings.TCP_WITHOUT_TLS)
    elif now.raw and is_unseen(now) and not is_unseen(was):
        yield RawScheme.TCP, Unseen(openings.TLS_IN_TCP)
    elif is_unseen(now) and not is_unseen(was):
        yield Scheme.HTTPS, Unseen(openings.PASSTHROUGH)


def _opened_logins(target: Authority, old: Host, new: Host, was: Decision, now: Decision) -> _Found:
    """Yield the logins that may be used, and could not; of a new host only what is injected."""
    if old.policy.credentials == new.policy.credentials and was.allowed:
        return
    for scheme in Scheme:
        if new.requests(scheme, target.port).is_empty:
            continue
        is_new = old.requests(scheme, target.port).is_empty
        before = logins_at(old.policy.credentials, target, scheme)
        before = logins_at((), target, scheme) if is_new else before
        for text in more_logins(before, logins_at(new.policy.credentials, target, scheme)):
            yield scheme, Login(text)
    if now.raw:
        known = old.policy.credentials if was.raw else ()
        before = database_logins_at(known, target)
        for text in more_logins(before, database_logins_at(new.policy.credentials, target)):
            yield RawScheme.TCP, Login(text)


def _opened_capabilities(target: Authority, old: Host, new: Host, was: Decision) -> _Found:
    before, after = old.limits_at(target.port), new.limits_at(target.port)
    scheme = Scheme.HTTPS
    if not was.allowed:
        if after is not None and after.narrows:
            yield scheme, Capability(f"the Messages API with {describe_limits(after)}")
        return
    for text in more_capabilities(before, after):
        yield scheme, Capability(text)


def _is_of_this_machine(target: Authority, host: Host) -> bool:
    address = target.address
    if address is None:
        return False
    return host.policy.decide_address(target, address, addresses.OWN).allowed


# --- denied networks, which no name may lead to


def _opened_to_names(old: Policy, new: Policy, nodes: Collection[HostNode]) -> Iterator[Opening]:
    parts = _parts_of_ports((*addresses.denied_ports((old, new)), *_all_ports(old, new)))
    found: dict[tuple[RuleScheme, tuple[HostSet, ...]], set[int]] = {}
    for at, (ports, others) in enumerate(parts):
        port = _unnamed_port(ports) if others else min(ports)
        for raw in (False, True):
            more = addresses.more_for_every_name(old, new, port, raw=raw)
            if more and _is_any_name_allowed(old, new, nodes, port, raw=raw):
                scheme = RawScheme.TCP if raw else Scheme.HTTPS
                found.setdefault((scheme, more), set()).add(at)
    everyone = HostSet(HostPattern.every(), (), frozenset({ALLOWED_NAMES}))
    for (scheme, networks), some in found.items():
        yield Opening(Addresses(networks), everyone, ((scheme, _joined(parts, some)),))


def _all_ports(old: Policy, new: Policy) -> Iterator[frozenset[int]]:
    for rule in (*old.allow, *new.allow):
        if rule.ports is not None:
            yield rule.ports


def _is_any_name_allowed(
    old: Policy, new: Policy, nodes: Iterable[HostNode], port: int, *, raw: bool
) -> bool:
    """Return whether there is a name that both policies allow at a port."""
    for node in nodes:
        if node.host is None or node.pattern.network is not None:
            continue
        target = Authority.of(node.host, port)
        decisions = old.decide_connect(target), new.decide_connect(target)
        if target.address is None and all(each.allowed and each.raw == raw for each in decisions):
            return True
    return False


# --- ports

type _Part = tuple[frozenset[int], bool]  # ports, or all but these


def _parts_of_ports(sets: Iterable[frozenset[int]]) -> list[_Part]:
    """Return all ports in parts that none of `sets` tells apart, the unnamed ones last."""
    distinct = list(dict.fromkeys(sets))
    members: dict[int, int] = {}
    for at, ports in enumerate(distinct):
        for port in ports:
            members[port] = members.get(port, 0) | 1 << at
    parts: dict[tuple[int, bool], set[int]] = {}
    for port, member in members.items():
        # Nothing but TLS and HTTP goes to these.
        parts.setdefault((member, port in WEB_PORTS), set()).add(port)
    named = [(frozenset(ports), False) for ports in parts.values()]
    return [*named, *([(frozenset(members), True)] if len(members) < MAX_PORT else [])]


def _unnamed_port(named: Collection[int]) -> int:
    unusual = (port for port in range(MAX_PORT, 0, -1) if port not in named)
    return next(port for port in unusual if port not in WEB_PORTS or len(named) >= MAX_PORT - 1)


def _joined(parts: list[_Part], some: Collection[int]) -> PortSet:
    """Return the ports of some parts."""
    last = len(parts) - 1
    if parts[last][1] and last in some:
        missing = (
            ports for at, (ports, others) in enumerate(parts) if at not in some and not others
        )
        return PortSet(frozenset().union(*missing), others=True)
    return PortSet(frozenset().union(*(parts[at][0] for at in some)))
