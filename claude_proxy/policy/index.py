"""Rule index: finds the rules that cover a host name or an address.

A look-up takes as long with a hundred thousand hosts as with a hundred: one step for each label of
a name, or for each prefix length that any rule has. Pure.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network

from claude_proxy.policy.decision import Decision
from claude_proxy.policy.host_rules import HostRules
from claude_proxy.policy.patterns import HostPattern, PatternKind
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.rules import Rule
from claude_proxy.wire.address import Address, AddressKind, Network, effective, kind_of
from claude_proxy.wire.authority import Authority

_NO_RULES = HostRules()
_ALL_ADDRESSES: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


class NameIndex:
    """The rules by name: one look-up for the name itself, then one for each suffix of it."""

    __slots__ = ("_below", "_named")

    def __init__(self) -> None:
        self._named: dict[str, HostRules] = {}
        self._below: dict[str, HostRules] = {}

    def entries(self, pattern: HostPattern) -> Iterator[HostRules]:
        """Yield the entries to which a rule with this pattern belongs."""
        if pattern.kind in {PatternKind.EXACT, PatternKind.DOMAIN}:
            yield self._named.setdefault(pattern.host, HostRules())
        if pattern.kind is not PatternKind.EXACT:
            yield self._below.setdefault(pattern.host, HostRules())

    def finish(self) -> None:
        """Let each entry inherit the rules of wider patterns."""
        # The widest first, so that each only has to inherit from the next wider one. The pattern of
        # every name is stored under "", the root, and inherits nothing.
        for name in sorted(filter(None, self._below), key=lambda name: name.count(".")):
            self._below[name].inherit(self._wider(name))
        for name, rules in self._named.items():
            rules.inherit(self._wider(name))

    def find(self, name: str) -> HostRules | None:
        """Return the rules that cover `name`."""
        return self._named.get(name) or self._wider(name)

    def _wider(self, name: str) -> HostRules | None:
        at = name.find(".")
        while at >= 0:
            name = name[at + 1 :]
            rules = self._below.get(name)
            if rules is not None:
                return rules
            at = name.find(".")
        return self._below.get("")


class NetworkIndex:
    """The rules by network: one look-up for each prefix length that any rule has."""

    __slots__ = ("_tables",)

    def __init__(self) -> None:
        self._tables: dict[int, dict[int, dict[int, HostRules]]] = {4: {}, 6: {}}

    def entry(self, network: Network) -> HostRules:
        """Return the entry of exactly this network."""
        tables = self._tables[network.version]
        shift = network.max_prefixlen - network.prefixlen
        prefix = int(network.network_address) >> shift
        return tables.setdefault(shift, {}).setdefault(prefix, HostRules())

    def finish(self) -> None:
        """Let each entry inherit the rules of wider networks."""
        for version, tables in self._tables.items():
            self._tables[version] = ordered = dict(sorted(tables.items()))
            for shift in reversed(ordered):
                for prefix, rules in ordered[shift].items():
                    rules.inherit(self._find(version, prefix << shift, shift + 1))

    def find(self, address: Address) -> HostRules | None:
        """Return the rules of the narrowest network that contains `address`."""
        return self._find(address.version, int(address), 0)

    def _find(self, version: int, number: int, least_shift: int) -> HostRules | None:
        for shift, table in self._tables[version].items():
            if shift >= least_shift and (rules := table.get(number >> shift)) is not None:
                return rules
        return None


class RuleIndex:
    """All rules of a policy, found by target or by address."""

    __slots__ = ("_names", "_networks")

    def __init__(self, allow: Iterable[Rule], deny: Iterable[Rule]) -> None:
        self._names = NameIndex()
        self._networks = NetworkIndex()
        for rule in allow:
            for entry in self._entries(rule.pattern):
                entry.allow.append(rule)
        for rule in deny:
            for entry in self._entries(rule.pattern):
                entry.deny.append(rule)
        self._names.finish()
        self._networks.finish()

    def find(self, target: Authority) -> HostRules | None:
        """Return the rules that cover the host of `target`; None: no rule does."""
        if target.address is None:
            return self._names.find(target.host)
        return self._find_literal(target.address)

    def denied_address(self, target: Authority, address: Address, *, raw: bool) -> Decision | None:
        """Return the denial if `address`, which `target` resolved to, is in a denied network.

        The scheme of a request is unknown here, so a network that is denied for http or https is
        denied for both. It must not be derived from what the target allows: then another allow rule
        could lead to a denial. Only a denial of tcp is for tunnels of a tcp rule alone (`raw`).
        """
        for reading in {address, effective(address)}:
            if (rules := self._networks.find(reading)) is not None:
                denial = next(rules.at(target.port).whole_denials(raw=raw), None)
                if denial is not None:
                    return denial
        return None

    def naming_rule(self, target: Authority, address: Address) -> Rule | None:
        """Return the rule for the name of `target` whose `addresses` include `address`.

        Needed for an address that is not public.
        """
        kind, inner = kind_of(address), effective(address)
        rules = self._names.find(target.host) or _NO_RULES
        for rule in rules.at(target.port).open_rules():
            if any(_names_address(network, inner, kind) for network in rule.addresses):
                return rule
        return None

    def _entries(self, pattern: HostPattern) -> Iterator[HostRules]:
        if pattern.network is None:
            yield from self._names.entries(pattern)
        else:
            yield self._networks.entry(pattern.network)
        if pattern.kind is PatternKind.EVERY:
            yield from map(self._networks.entry, _ALL_ADDRESSES)

    def _find_literal(self, address: Address) -> HostRules | None:
        rules = self._networks.find(address) or _NO_RULES
        inner = effective(address)
        if inner != address:
            # An IPv6 address that embeds an IPv4 one is never allowed. A deny rule for either
            # address determines the reason.
            return HostRules((), rules.deny + (self._networks.find(inner) or _NO_RULES).deny)
        kind = kind_of(address)
        every = any(rule.pattern.kind is PatternKind.EVERY for rule in rules.allow)
        if kind is AddressKind.METADATA or (every and kind is not AddressKind.PUBLIC):
            named = (
                rule for rule in rules.allow if _names_address(rule.pattern.network, address, kind)
            )
            no_rule = Reason.ADDRESS_NOT_ALLOWED if every else Reason.NO_RULE
            return HostRules(named, rules.deny, no_rule)
        return rules


def _names_address(network: Network | None, address: Address, kind: AddressKind) -> bool:
    """Return whether a rule with this network is meant for `address`."""
    if network is None or address not in network:
        return False
    # "169.254.0.0/16" may be written for a printer; a metadata service must be named exactly.
    return kind is not AddressKind.METADATA or network.prefixlen == network.max_prefixlen
