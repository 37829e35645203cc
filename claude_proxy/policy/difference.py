"""Difference of two policies: what one allows and the other does not, as rules that a person reads.

One judge: hosts, ports, methods and paths are cut into parts that no pattern of either policy tells
apart, and one question for each part stands for all of them. As policies have no regular
expressions, this is exact: no line means that nothing is opened. Pure.
"""

from collections.abc import Collection, Iterable, Iterator

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.policy.comparison import addresses, openings
from claude_proxy.policy.comparison.apis import more_capabilities
from claude_proxy.policy.comparison.folding import folded, folds
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
from claude_proxy.policy.comparison.ports import joined, parts_of_ports, port_of
from claude_proxy.policy.comparison.request_sets import more_requests
from claude_proxy.policy.comparison.sides import Host, Side, is_unseen
from claude_proxy.policy.comparison.values import Places
from claude_proxy.policy.credentials.binding import SAME_ACCOUNTS
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme, RuleScheme
from claude_proxy.policy.summary import describe_limits
from claude_proxy.wire.authority import Authority


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes between two policies; empty: nothing."""

    opens: tuple[Opening, ...] = ()
    closes: tuple[Opening, ...] = ()
    asks: tuple[Opening, ...] = ()  # what is opened once the owner has said yes to it


def difference(old: Policy, new: Policy) -> Difference:
    """Return what `new` allows and `old` does not, and the other way round."""
    opens = opened(old, new)
    asks: tuple[Opening, ...] = ()
    if new.ask:
        known = set(opens)
        answered = opened(old.as_answered(), new.as_answered())
        asks = tuple(each for each in answered if each not in known)
    return Difference(opens, opened(new, old), asks)


def opened(old: Policy, new: Policy) -> tuple[Opening, ...]:
    """Return what `new` allows and `old` does not."""
    before, after = Side(old), Side(new)
    accounts = SAME_ACCOUNTS if old.credentials or new.credentials else ()
    nodes = host_tree((*before.patterns(), *after.patterns()), accounts)
    found = {
        node: some
        for node in nodes
        if node.host is not None and (some := _opened_at(node.host, before, after))
    }
    fold = folded(nodes, found, before, after)
    together: dict[tuple[What, Places], list[HostNode]] = {}
    for node, some in fold.found.items():
        for pair in some:
            together.setdefault(pair, []).append(node)
    lines = [
        Opening(what, hosts, places)
        for (what, places), some_nodes in together.items()
        for hosts in host_sets(some_nodes)
    ]
    lines = [
        replace(each, partly=fold.partly_under(each)) if folds(each.what) else each
        for each in lines
    ]
    lines += _opened_to_names(old, new, nodes)
    return tuple(sorted(lines, key=lambda each: each.sort_key))


type _Found = Iterator[tuple[RuleScheme, What]]


def _opened_at(host: str, before: Side, after: Side) -> list[tuple[What, Places]]:
    """Return what is opened on one host, with the schemes and ports."""
    old, new = before.at(host), after.at(host)
    if old.says() == new.says() or not new.allow:
        return []
    parts = parts_of_ports((*old.ports(), *new.ports()))
    found: dict[What, dict[RuleScheme, set[int]]] = {}
    for at, part in enumerate(parts):
        port = port_of(part)
        for scheme, what in _opened_on(Authority.of(host, port), old, new):
            found.setdefault(what, {}).setdefault(scheme, set()).add(at)
    return [
        (what, tuple((scheme, joined(parts, some)) for scheme, some in sorted(places.items())))
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
    known, bindings = old.policy.credentials, new.policy.credentials
    if not (known or bindings) or (known == bindings and was.allowed):
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
    parts = parts_of_ports((*addresses.denied_ports((old, new)), *_all_ports(old, new)))
    found: dict[tuple[RuleScheme, tuple[HostSet, ...]], set[int]] = {}
    for at, part in enumerate(parts):
        port = port_of(part)
        for raw in (False, True):
            more = addresses.more_for_every_name(old, new, port, raw=raw)
            if more and _is_any_name_allowed(old, new, nodes, port, raw=raw):
                scheme = RawScheme.TCP if raw else Scheme.HTTPS
                found.setdefault((scheme, more), set()).add(at)
    everyone = HostSet(HostPattern.every(), (), frozenset({ALLOWED_NAMES}))
    for (scheme, networks), some in found.items():
        yield Opening(Addresses(networks), everyone, ((scheme, joined(parts, some)),))


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
