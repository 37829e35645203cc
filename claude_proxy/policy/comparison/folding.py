"""Folding: one line for a wildcard that opens hosts of which something was allowed already.

The exact rest for each of those hosts is kept inside, so nothing is lost by it. Pure.
"""

from collections.abc import Iterable, Mapping

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.comparison import openings
from claude_proxy.policy.comparison.host_tree import HostNode, host_sets
from claude_proxy.policy.comparison.openings import Opening, Partly, Requests, Unseen, What
from claude_proxy.policy.comparison.ports import parts_of_ports, port_of
from claude_proxy.policy.comparison.sides import Host, Side, is_unseen
from claude_proxy.policy.comparison.values import Places
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.authority import Authority

type Found = Mapping[HostNode, list[tuple[What, Places]]]

_TUNNELS = frozenset(
    {openings.TCP, openings.TCP_WITHOUT_TLS, openings.OPAQUE, openings.PASSTHROUGH}
)


@dataclass(frozen=True, slots=True)
class Folded:
    """What is opened on each node, and what was left of nodes that are part of a wider one."""

    found: Found
    partly: Mapping[HostNode, Partly]

    def partly_under(self, opening: Opening) -> tuple[Partly, ...]:
        """Return what is left on those of an opening's hosts that are folded into it."""
        return tuple(
            part
            for node, part in self.partly.items()
            if node.host is not None and opening.hosts.covers(Authority.of(node.host, 443))
        )


def folded(nodes: Iterable[HostNode], found: Found, before: Side, after: Side) -> Folded:
    """Return what is opened, with a narrower host as part of the wildcard that it is below."""
    kept = {node: list(some) for node, some in found.items()}
    partly: dict[HostNode, Partly] = {}
    wide: dict[HostNode, Host] = {}  # nodes where everything the new policy allows is opened
    for node in _top_down(nodes):
        parent, some = node.parent, found.get(node, [])
        if node.host is None:
            continue
        new = after.at(node.host)
        if parent in wide and _is_same(node.host, new, parent.host, wide[parent]):
            if some and not before.at(node.host).allow:
                wide[node] = new  # it is merged with its parent anyway
                continue
            requests = [(what, places) for what, places in some if folds(what)]
            own = host_sets([node])
            rest = tuple(Opening(what, own[0], places) for what, places in requests)
            partly[node] = Partly(own[0], rest)
            others = [(what, places) for what, places in some if not folds(what)]
            kept[node] = [pair for pair in kept[parent] if folds(pair[0])] + others
            wide[node] = new
        elif any(folds(what) for what, _ in some) and not before.at(node.host).allow:
            wide[node] = new
    return Folded(kept, partly)


def _top_down(nodes: Iterable[HostNode]) -> list[HostNode]:
    """Return nodes so that each comes after its parent."""
    found: list[HostNode] = []
    waiting = [node for node in nodes if node.parent is None]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += node.children
    return found


def folds(what: What) -> bool:
    """Return whether an opening of a narrower host can be part of a wider one's."""
    return isinstance(what, Requests) or (isinstance(what, Unseen) and what.text in _TUNNELS)


def _is_same(host: str, new: Host, other_host: str | None, other: Host) -> bool:
    """Return whether a policy allows the same requests and tunnels to two hosts."""
    if other_host is None:
        return False
    for part in parts_of_ports((*new.ports(), *other.ports())):
        port = port_of(part)
        mine = new.policy.decide_connect(Authority.of(host, port))
        others = other.policy.decide_connect(Authority.of(other_host, port))
        if (mine.allowed, mine.raw, mine.opaque, is_unseen(mine)) != (
            *(others.allowed, others.raw, others.opaque, is_unseen(others)),
        ):
            return False
        for scheme in Scheme:
            one, two = new.requests(scheme, port), other.requests(scheme, port)
            names = (*(one.methods | two.methods), "")
            if any(one.paths_of(name) != two.paths_of(name) for name in names):
                return False
    return True
