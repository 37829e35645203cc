"""Finds limits on requests that no one could keep, as another rule passes the TLS through.

Law kept: no quiet downgrade (11). A passthrough anywhere wins for its host, so a limit below it
would be written down and not kept: the load is refused, with both lines. Pure.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from claude_proxy.patterns import HostPattern, PatternKind
from claude_proxy.policy import Rule, Scheme, Tls
from claude_proxy.strict_yaml import Problems

type Network = IPv4Network | IPv6Network


def note_clashes(allow: list[Rule], deny: list[Rule], problems: Problems) -> None:
    """Report limits on requests that could not be kept, as another rule passes the TLS through."""
    through = [rule for rule in allow if rule.tls is Tls.PASSTHROUGH]
    if not through:
        return
    limits = [rule for rule in allow if rule.limited and rule.scheme is Scheme.HTTPS]
    denials = [rule for rule in deny if rule.limited and rule.scheme is not Scheme.HTTP]
    passed, denied = _Coverage(through), _Coverage(denials)
    # A dict, as a denial and a passthrough of the same pattern find each other.
    found: dict[tuple[Rule, Rule], None] = {}
    for limit in (*limits, *denials):
        if (passing := passed.of(limit)) is not None:
            found[limit, passing] = None
    for passing in through:
        if (denial := denied.of(passing)) is not None:
            found[denial, passing] = None
    for limit, passing in found:
        _note_clash(limit, passing, problems)


def _note_clash(limit: Rule, through: Rule, problems: Problems) -> None:
    fields = "methods" if limit.paths is None else "paths"
    place = limit if limit.source.preset is None else through
    other = through if place is limit else limit
    if place is limit:
        reason = f"{through.name} ({through.source}) passes TLS through"
        what = f"{fields} cannot be checked here, as {reason}"
    else:
        what = f"passing TLS through here would undo the {fields} of {limit.name} ({limit.source})"
    problems.add_at(
        what,
        place.source.line,
        place.source.column,
        key=place.name,
        mend=f"delete this entry or the other ({other.source}), or tls: passthrough",
    )


class _Coverage:
    """Finds the rule whose pattern holds all hosts of another's, without trying each."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._named: dict[tuple[PatternKind, str], list[Rule]] = {}
        self._networks: list[Rule] = []
        for rule in rules:
            if rule.pattern.network is not None:
                self._networks.append(rule)
            else:
                place = (rule.pattern.kind, rule.pattern.host)
                self._named.setdefault(place, []).append(rule)

    def of(self, rule: Rule) -> Rule | None:
        """Return a rule that covers the pattern of `rule` on a port that both are for."""
        if rule.pattern.network is not None:
            found: Iterable[Rule] = self._around(rule.pattern.network)
        else:
            found = (each for place in _wider(rule.pattern) for each in self._named.get(place, ()))
        return next((each for each in found if _share_a_port(each, rule)), None)

    def _around(self, network: Network) -> Iterable[Rule]:
        first, last = network[0], network[-1]
        for rule in self._networks:
            other = rule.pattern.network
            if other is not None and first in other and last in other:
                yield rule


def _wider(pattern: HostPattern) -> Iterable[tuple[PatternKind, str]]:
    """Yield every pattern that covers all that `pattern` covers, itself first."""
    yield (pattern.kind, pattern.host)
    if pattern.kind is not PatternKind.DOMAIN:
        yield (PatternKind.DOMAIN, pattern.host)
    _, dot, parent = pattern.host.partition(".")
    while dot:
        yield (PatternKind.DOMAIN, parent)
        yield (PatternKind.SUBDOMAINS, parent)
        _, dot, parent = parent.partition(".")


def _share_a_port(one: Rule, other: Rule) -> bool:
    return one.ports is None or other.ports is None or not one.ports.isdisjoint(other.ports)
