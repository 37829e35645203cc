"""Lookups: whether a client that resolves names itself may have an address for a name.

One judge: a name is looked up to connect to it, so it is allowed if a tunnel to it is, at any port
that a rule names, or if its owner would be asked about one. Names below one wildcard could be made
up to carry data to the resolver behind the proxy, or into the record: how such a name may look is
limited here, and how many of them one run may have in `proxy.name_limits`. Pure.
"""

from collections.abc import Iterator

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.decision import Decision, denied
from claude_proxy.policy.patterns import HostPattern, PatternKind
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.wire.authority import Authority

MOST_PORTS = 64  # of one name

_USUAL_PORTS = (443, 80)
_LABEL_LIMIT = 40  # characters of a label below a wildcard
_BELOW_LIMIT = 100  # characters below a wildcard, all labels together
_UNNAMED = frozenset({PatternKind.SUBDOMAINS, PatternKind.DOMAIN})

# Letters and digits mixed without a break, as hexadecimal and base32 are: no word is like this.
_looks_encoded = lazy_pattern(r"(?=(?:[a-z]*[0-9]){4})[a-z0-9]{24,}").fullmatch


@dataclass(frozen=True, slots=True)
class LookupDecision:
    """Whether a name may have an address, and what for."""

    decision: Decision
    ports: tuple[int, ...] = ()  # at which a tunnel to it is allowed, as far as rules name them
    wildcard: HostPattern | None = (
        None  # the pattern by which it is allowed, if that has many names
    )

    @property
    def leads_on(self) -> bool:
        """Whether the name may have an address: a connection to it is allowed, or asked about."""
        return self.decision.allowed or self.decision.asks


def decide_lookup(policy: Policy, name: str) -> LookupDecision:
    """Decide whether a name that was looked up may have an address."""
    try:
        target = Authority.of(name, _USUAL_PORTS[0])
    except ValueError:
        return LookupDecision(denied(Reason.INVALID_TARGET))
    if target.address is not None:
        return LookupDecision(denied(Reason.INVALID_TARGET))
    first = None
    ports = []
    for port in _ports_for(policy, target):
        decision = policy.decide_tunnel(Authority.of(target.host, port))
        if decision.allowed or decision.asks:
            first = decision if first is None else first
            ports.append(port)
    if first is None or first.rule is None:
        return LookupDecision(policy.decide_tunnel(target))
    pattern = first.rule.pattern
    wildcard = None if pattern.kind is PatternKind.EXACT else pattern
    if pattern.kind in _UNNAMED and _may_carry_data(target.host, pattern.host):
        return LookupDecision(denied(Reason.NAME_LIMIT, first.rule))
    return LookupDecision(first, tuple(ports[:MOST_PORTS]), wildcard)


def _ports_for(policy: Policy, target: Authority) -> Iterator[int]:
    """Yield the ports that rules for the host name, the usual ones first, each once."""
    seen = set(_USUAL_PORTS)
    yield from _USUAL_PORTS
    for rule in (*policy.allow, *policy.ask):
        if rule.ports is not None and rule.pattern.covers(target):
            yield from sorted(rule.ports - seen)
            seen |= rule.ports


def _may_carry_data(host: str, base: str) -> bool:
    """Tell whether the part of a name below a wildcard is longer or odder than names are."""
    below = host.removesuffix(base).rstrip(".")
    labels = below.split(".")
    return len(below) > _BELOW_LIMIT or any(
        len(label) > _LABEL_LIMIT or _looks_encoded(label) is not None for label in labels
    )
