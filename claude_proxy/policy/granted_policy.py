"""Policy with grants: a list's policy, with the rules of grants on top.

One judge: the rules of a grant are judged like any other. Deny rules win, credentials and API
restrictions stay in force. What the list allows, it allows as before, and without spending a grant.
Pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from claude_proxy.policy.decision import Decision, allowed_by
from claude_proxy.policy.grants import Grant, number_of, of_grant
from claude_proxy.policy.host_rules import HostRules
from claude_proxy.policy.index import RuleIndex
from claude_proxy.policy.policy import AddressOwner, Policy
from claude_proxy.policy.request import Request
from claude_proxy.policy.rules import Rule
from claude_proxy.wire.address import Address
from claude_proxy.wire.authority import Authority

_MERGED_HOSTS = 4096  # whose rules are kept together; a client chooses the names it asks for


def with_grants(policy: Policy, grants: Sequence[Grant]) -> Policy:
    """Return the policy with the rules of grants, those first that cost nothing to use.

    What the grants do not change is asked of `policy` itself, so a long list is not indexed again.
    """
    if not grants:
        return policy
    ordered = sorted(grants, key=lambda grant: (grant.is_counted, grant.number))
    rules = tuple(rule for grant in ordered for rule in of_grant(grant.rules, grant.number))
    spending = tuple(
        rule for rule in rules if rule.addresses and _is_counted(number_of(rule), ordered)
    )
    return GrantedPolicy(
        allow=(*policy.allow, *rules),
        deny=policy.deny,
        credentials=policy.credentials,
        restrictions=policy.restrictions,
        ask=policy.ask,
        listed=policy,
        granted=rules,
        spending=spending,
    )


def _is_counted(number: int | None, grants: Iterable[Grant]) -> bool:
    return any(grant.is_counted for grant in grants if grant.number == number)


@dataclass(frozen=True, slots=True)
class GrantedPolicy(Policy):
    """A policy with the rules of grants on top; what the list allows, it allows as before."""

    listed: Policy = field(default_factory=Policy)
    granted: tuple[Rule, ...] = ()
    # Of counted grants, for an address that is not public: each request to their host is a use,
    # also one that the list allows, as it may lead to that address.
    spending: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        listed = self.listed
        index = LayeredIndex(listed._rules, RuleIndex(self.granted, ()))  # noqa: SLF001 - of one class
        object.__setattr__(self, "_rules", index)
        object.__setattr__(self, "_placeholders", listed._placeholders)  # noqa: SLF001 - as above
        object.__setattr__(self, "_for_requests", listed._for_requests)  # noqa: SLF001 - as above
        object.__setattr__(self, "_answered", [])

    def as_answered(self) -> Policy:
        """Return the policy in which everything that the list asks about is allowed."""
        if not self.ask:
            return self
        if not self._answered:
            listed = self.listed.as_answered()
            self._answered.append(
                replace(self, allow=(*listed.allow, *self.granted), ask=(), listed=listed)
            )
        return self._answered[0]

    def decide_connect(self, target: Authority) -> Decision:
        """Decide about a tunnel; where the list lets any bytes pass, a grant changes nothing."""
        listed = self.listed.decide_connect(target)
        if listed.allowed and listed.raw:
            return listed
        # Named, as `super()` knows another class in a dataclass with slots.
        decision = Policy.decide_connect(self, target)
        return listed if listed.allowed and not decision.allowed else decision

    def decide_address(
        self, target: Authority, address: Address, owner: AddressOwner = AddressOwner.OTHER
    ) -> Decision:
        """Decide about an address, first as the list does."""
        listed = self.listed.decide_address(target, address, owner)
        if listed.allowed or self.listed.decide_connect(target).raw:
            return listed
        return Policy.decide_address(self, target, address, owner)

    def decide_request(self, request: Request) -> Decision:
        """Decide about a request, first as the list does."""
        listed = self.listed.decide_request(request)
        if listed.allowed:
            rule = self._spending_rule(request)
            return listed if rule is None else allowed_by(rule, restricted=listed.restricted)
        decision = Policy.decide_request(self, request)
        rule = decision.rule
        if decision.allowed and rule is not None and rule.limited and not decision.restricted:
            # The host may be open by another grant, for whose use this one must not stand.
            return replace(decision, restricted=True)
        return decision

    def _spending_rule(self, request: Request) -> Rule | None:
        target = request.target
        for rule in self.spending:
            if (rule.ports is None or target.port in rule.ports) and rule.pattern.covers(target):
                return rule
        return None

    def allows_url(self, url: str, method: str = "GET") -> bool:
        """Tell whether the API may fetch `url` for a client: what the list allows, and no more.

        A grant is for what a client sends itself: nobody could count what is fetched elsewhere.
        """
        return self.listed.allows_url(url, method)


class LayeredIndex(RuleIndex):
    """The rules of a list, with those of grants behind them."""

    __slots__ = ("_granted", "_listed", "_merged")

    def __init__(self, listed: RuleIndex, granted: RuleIndex) -> None:
        self._listed = listed
        self._granted = granted
        self._merged: dict[tuple[int, int], tuple[HostRules, HostRules, HostRules]] = {}

    def find(self, target: Authority) -> HostRules | None:
        """Return the rules that cover the host of `target`, those of the list first."""
        listed, granted = self._listed.find(target), self._granted.find(target)
        if listed is None or granted is None:
            return listed if granted is None else granted
        key = (id(listed), id(granted))
        found = self._merged.get(key)
        # Both are kept with what they became, so that neither id can be another's.
        if found is None:
            if len(self._merged) >= _MERGED_HOSTS:
                self._merged.clear()
            found = self._merged[key] = (listed, granted, _both(listed, granted))
        return found[2]

    def denied_address(self, target: Authority, address: Address, *, raw: bool) -> Decision | None:
        """Return the denial of an address by the list; grants deny nothing."""
        return self._listed.denied_address(target, address, raw=raw)

    def naming_rule(self, target: Authority, address: Address) -> Rule | None:
        """Return the rule that names an address which is not public, the list's first."""
        rule = self._listed.naming_rule(target, address)
        return self._granted.naming_rule(target, address) if rule is None else rule


def _both(listed: HostRules, granted: HostRules) -> HostRules:
    allow: Iterator[Rule] = (rule for rules in (listed, granted) for rule in rules.allow)
    no_rule = listed.no_rule if listed.allow or listed.deny else granted.no_rule
    return HostRules(allow, listed.deny, no_rule)
