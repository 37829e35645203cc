"""Sides of a comparison: one policy, looked up by host, port and scheme. Pure."""

from collections.abc import Iterator
from typing import Any

from claude_proxy.policy.comparison.request_sets import RequestSets
from claude_proxy.policy.credentials.binding import Binding, bound_by_provider
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.host_rules import HostRules
from claude_proxy.policy.index import RuleIndex
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.patterns import HostPattern, any_covers
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import Rule, Tls
from claude_proxy.wire.authority import Authority

_ANY_PORT = 443


class Side:
    """One of two policies that are compared."""

    __slots__ = ("_index", "policy")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._index = RuleIndex(policy.allow, policy.deny)

    def patterns(self) -> Iterator[HostPattern]:
        """Yield every pattern of the policy."""
        policy = self.policy
        for rule in (*policy.allow, *policy.deny):
            yield rule.pattern
        for binding in policy.credentials:
            yield from binding.patterns
        for entry in policy.restrictions:
            yield from entry.patterns

    def at(self, host: str) -> "Host":
        """Return what the policy says about one host."""
        target = Authority.of(host, _ANY_PORT)
        credentials = self.policy.credentials
        bindings = [each for each in credentials if any_covers(each.patterns, target)]
        bindings += bound_by_provider(target, credentials)
        restrictions = [
            each for each in self.policy.restrictions if any_covers(each.patterns, target)
        ]
        return Host(self.policy, self._index.find(target), bindings, restrictions)


class Host:
    """What one policy says about one host."""

    __slots__ = ("bindings", "policy", "restrictions", "rules")

    def __init__(
        self,
        policy: Policy,
        rules: HostRules | None,
        bindings: list[Binding],
        restrictions: list[ApiRestrictions],
    ) -> None:
        self.policy = policy
        self.rules = rules
        self.bindings = bindings
        self.restrictions = restrictions

    @property
    def allow(self) -> list[Rule]:
        """The allow rules for the host."""
        return [] if self.rules is None else self.rules.allow

    @property
    def deny(self) -> list[Rule]:
        """The deny rules for the host."""
        return [] if self.rules is None else self.rules.deny

    def says(self) -> tuple[object, ...]:
        """Return what decides, without notes and places: equal for hosts that are treated alike."""
        return (
            tuple(map(_content, self.allow)),
            tuple(map(_content, self.deny)) if self.allow else (),
            tuple(self.bindings),
            tuple(map(_of_restrictions, self.restrictions)),
        )

    def ports(self) -> Iterator[frozenset[int]]:
        """Yield the sets of ports that anything here names."""
        for rule in (*self.allow, *self.deny):
            if rule.ports is not None:
                yield rule.ports
        for binding in self.bindings:
            yield binding.ports
        for entry in self.restrictions:
            if entry.ports is not None:
                yield entry.ports

    def limits_at(self, port: int) -> ApiRestrictions | None:
        """Return the restrictions of the Messages API at a port."""
        return next((e for e in self.restrictions if e.ports is None or port in e.ports), None)

    def requests(self, scheme: Scheme, port: int) -> RequestSets:
        """Return the requests that are allowed."""
        return RequestSets(self.rules, scheme, port, self.limits_at(port))


def is_unseen(connect: Decision) -> bool:
    """Return whether TLS passes that nobody opens."""
    return connect.allowed and connect.secure and connect.tls is Tls.PASSTHROUGH


def _content(rule: Rule) -> tuple[Any, ...]:
    return (
        *(rule.pattern, rule.scheme, rule.ports, rule.methods, rule.paths, rule.tls),
        *(rule.addresses, rule.opaque),
    )


def _of_restrictions(entry: ApiRestrictions) -> tuple[Any, ...]:
    return (
        *(entry.ports, entry.paths, entry.models, entry.beta, entry.server_tools),
        *(entry.mcp_servers, entry.sources, entry.max_bytes),
    )
