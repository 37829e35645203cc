"""Host tree: every host in parts that no pattern of some policies tells apart.

Each node is a pattern without what its children cover, so one host of a node's own part stands for
all of them. Sets of nodes become patterns again, with exceptions. Pure.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import field
from ipaddress import IPv4Network, IPv6Network, ip_address
from itertools import chain

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.patterns import HostPattern, PatternKind
from claude_proxy.wire.address import (
    Address,
    AddressKind,
    Network,
    effective,
    kind_of,
    special_networks,
)
from claude_proxy.wire.authority import Authority, text_of

_LONGEST_NAME = 253  # RFC 1035, as text without the final dot
_ALL_IPV4 = IPv4Network("0.0.0.0/0")
_ALL_IPV6 = IPv6Network("2000::/3")  # all that is public
_MOST_TRIES = 64
_NAMES = "names"
_VERSIONS = {4: "IPv4", 6: "IPv6"}
ALLOWED_NAMES = "every allowed name"
_EVERY = frozenset({_NAMES, *_VERSIONS.values()})


@dataclass(slots=True, eq=False)
class HostNode:
    """A pattern; `host` is one that no child covers, None if the children cover all of it."""

    pattern: HostPattern
    host: str | None
    parent: "HostNode | None"
    named: bool = True  # a policy has this pattern; otherwise it is a special network
    children: "list[HostNode]" = field(default_factory=list)

    @property
    def is_root(self) -> bool:
        """Whether it covers what no pattern names: all names, or all public addresses."""
        return self.parent is None and self.pattern.kind is PatternKind.EVERY


@dataclass(frozen=True, slots=True)
class HostSet:
    """The hosts of a pattern, without some."""

    pattern: HostPattern
    but: tuple[HostPattern, ...] = ()
    of: frozenset[str] = _EVERY  # of the pattern of every host: which kinds of hosts

    def covers(self, target: Authority) -> bool:
        """Return whether the host of `target` is one of these."""
        if any(each.covers(target) for each in self.but) or not self.pattern.covers(target):
            return False
        if self.pattern.kind is not PatternKind.EVERY:
            return True
        if target.address is None:
            return _NAMES in self.of
        address = target.address
        if effective(address) != address or kind_of(address) is not AddressKind.PUBLIC:
            return False
        return _VERSIONS[address.version] in self.of

    def __str__(self) -> str:
        if self.pattern.kind is not PatternKind.EVERY:
            return str(self.pattern)
        if self.of == _EVERY:
            return "every public host"
        if self.of == {ALLOWED_NAMES}:
            return ALLOWED_NAMES
        if _NAMES in self.of:
            return "every name"
        version = f"{min(self.of)} " if len(self.of) == 1 else ""
        return f"every public {version}address"

    @property
    def sort_key(self) -> tuple[object, ...]:
        """The order of lines: every host, names by domain, then addresses."""
        kind = self.pattern.kind
        labels = tuple(reversed(self.pattern.host.split(".")))
        network = self.pattern.network
        if network is not None:
            return (2, network.version, int(network.network_address), network.prefixlen)
        return (0 if kind is PatternKind.EVERY else 1, labels, kind.value)


def host_tree(patterns: Iterable[HostPattern], names: Iterable[str] = ()) -> tuple[HostNode, ...]:
    """Return the nodes for all hosts, told apart by `patterns`, and by these `names`."""
    listed = list(patterns)
    networks = [each.network for each in listed if each.network is not None]
    return (*_name_nodes(listed, names), *network_nodes(networks))


def _name_nodes(patterns: Iterable[HostPattern], names: Iterable[str]) -> list[HostNode]:
    exact, below = set(names), set()
    for pattern in patterns:
        if pattern.kind in {PatternKind.EXACT, PatternKind.DOMAIN}:
            exact.add(pattern.host)
        if pattern.kind in {PatternKind.SUBDOMAINS, PatternKind.DOMAIN}:
            below.add(pattern.host)
    root = HostNode(HostPattern.every(), _unnamed(exact, below), None)
    nodes = [root]
    wide: dict[str, HostNode] = {}
    for base in sorted(below, key=lambda name: name.count(".")):
        pattern = HostPattern(PatternKind.SUBDOMAINS, base)
        node = HostNode(pattern, _other_name(base, exact, below), _above(base, wide, root))
        wide[base] = node
        nodes.append(node)
    for name in sorted(exact):
        pattern = HostPattern(PatternKind.EXACT, name)
        nodes.append(HostNode(pattern, name, _above(name, wide, root)))
    return _linked(nodes)


def _above(name: str, wide: dict[str, HostNode], root: HostNode) -> HostNode:
    while "." in name:
        name = name.partition(".")[2]
        if name in wide:
            return wide[name]
    return root


def _other_name(base: str, exact: Collection[str], below: Collection[str]) -> str | None:
    """Return a name below `base` that no pattern names; None if names cannot be so long."""
    for number in range(len(exact) + len(below) + 1):
        name = f"any{number or ''}.{base}"
        if name not in exact and name not in below:
            return name if len(name) <= _LONGEST_NAME else None
    return None


def _unnamed(exact: Collection[str], below: Collection[str]) -> str:
    """Return a name that no pattern names or covers."""
    number = 0
    while f"any{number}" in below or f"any.any{number}" in exact or f"any.any{number}" in below:
        number += 1
    return f"any.any{number}"


def network_nodes(networks: Iterable[Network]) -> list[HostNode]:
    """Return the nodes for all addresses, told apart by `networks` and by the kinds there are."""
    given = set(networks)
    found = {*given, *special_networks(), _ALL_IPV4, _ALL_IPV6}
    ordered = sorted(
        found, key=lambda each: (each.version, int(each.network_address), each.prefixlen)
    )
    nodes: list[HostNode] = []
    above: list[tuple[Network, HostNode]] = []
    for network in ordered:
        while above and not _contains(above[-1][0], network):
            above.pop()
        whole = network in {_ALL_IPV4, _ALL_IPV6}
        pattern = HostPattern.every() if whole else _pattern_of(network)
        parent = above[-1][1] if above else None
        node = HostNode(pattern, None, parent, whole or network in given)
        nodes.append(node)
        above.append((network, node))
    _linked(nodes)
    for network, node in zip(ordered, nodes, strict=True):
        node.host = _other_address(network, node)
    return nodes


def _pattern_of(network: Network) -> HostPattern:
    single = network.prefixlen == network.max_prefixlen
    return HostPattern(PatternKind.LITERAL if single else PatternKind.NETWORK, "", network)


def _contains(wide: Network, network: Network) -> bool:
    if wide.version != network.version:
        return False
    return all(address in wide for address in (network[0], network[-1]))


def _other_address(network: Network, node: HostNode) -> str | None:
    """Return an address of `network` that is in none of its children; None if all are."""
    number, last = int(network.network_address), int(network.broadcast_address)
    taken = [each.pattern.network for each in node.children]
    for child in (*taken, None):
        if child is None or number < int(child.network_address):
            end = last if child is None else int(child.network_address) - 1
            if (address := _plain_address(number, end, network.version)) is not None:
                return text_of(address)
        if child is not None:
            number = int(child.broadcast_address) + 1
    return None


def _plain_address(first: int, last: int, version: int) -> Address | None:
    """Return an address that embeds no other one, if that is easily found."""
    tried = [
        ip_address(number.to_bytes(4 if version == 4 else 16))  # noqa: PLR2004 - of IP
        for number in range(first, min(last + 1, first + _MOST_TRIES))
    ]
    plain = (address for address in tried if effective(address) == address)
    return next(chain(plain, tried), None)


def _linked(nodes: list[HostNode]) -> list[HostNode]:
    for node in nodes:
        if node.parent is not None:
            node.parent.children.append(node)
    return nodes


def host_sets(nodes: Collection[HostNode]) -> list[HostSet]:
    """Return patterns that cover exactly the own parts of some nodes of one tree."""
    members = set(nodes)
    _add_covered(members)
    found = []
    for node in members:
        if node.parent not in members or not _is_in_parent(node):
            but = list(_missing(node, members, is_root=node.is_root))
            found.append((node, but))
    return _merged(found)


def _is_in_parent(node: HostNode) -> bool:
    """Return whether the pattern above covers a node: every public address is no other one."""
    network = node.pattern.network
    if network is None or node.parent is None or not node.parent.is_root:
        return True
    return kind_of(network.network_address) is AddressKind.PUBLIC


def _add_covered(members: set[HostNode]) -> None:
    """Add the nodes without a part of their own whose children are all members."""
    waiting = {node.parent for node in members}
    while waiting:
        node = waiting.pop()
        if node is None or node in members or node.host is not None:
            continue
        if all(child in members for child in node.children):
            members.add(node)
            waiting.add(node.parent)


def _missing(
    node: HostNode, members: Collection[HostNode], *, is_root: bool
) -> Iterator[HostPattern]:
    for child in node.children:
        if child in members:
            yield from _missing(child, members, is_root=is_root)
        elif child.named or not is_root:
            yield child.pattern


def _merged(found: Iterable[tuple[HostNode, list[HostPattern]]]) -> list[HostSet]:
    """Return sets of which names with their subdomains, and all hosts, are one pattern each."""
    roots = [(node, but) for node, but in found if node.is_root]
    sets = [HostSet(node.pattern, tuple(_domains(but))) for node, but in found if not node.is_root]
    by_pattern = {each.pattern: each for each in sets}
    for each in sets:
        if each.pattern.kind is PatternKind.SUBDOMAINS:
            itself = HostPattern(PatternKind.EXACT, each.pattern.host)
            if by_pattern.pop(itself, None) is not None:
                by_pattern[each.pattern] = HostSet(
                    HostPattern(PatternKind.DOMAIN, each.pattern.host), each.but
                )
    return sorted((*_every(roots), *by_pattern.values()), key=lambda each: each.sort_key)


def _every(roots: Iterable[tuple[HostNode, list[HostPattern]]]) -> Iterator[HostSet]:
    found = list(roots)
    if found:
        but = _domains(pattern for _, each in found for pattern in each)
        yield HostSet(
            HostPattern.every(), tuple(but), frozenset(_kind_of_root(r) for r, _ in found)
        )


def _kind_of_root(root: HostNode) -> str:
    networks = [network for each in root.children if (network := each.pattern.network) is not None]
    return _VERSIONS[networks[0].version] if networks else _NAMES


def _domains(patterns: Iterable[HostPattern]) -> list[HostPattern]:
    """Return patterns in order, a name and its subdomains as one."""
    found = dict.fromkeys(patterns)
    for pattern in list(found):
        itself = HostPattern(PatternKind.EXACT, pattern.host)
        if pattern.kind is PatternKind.SUBDOMAINS and itself in found:
            del found[itself], found[pattern]
            found[HostPattern(PatternKind.DOMAIN, pattern.host)] = None
    return sorted(found, key=lambda each: HostSet(each).sort_key)
