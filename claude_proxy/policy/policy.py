"""The policy: decides what a client may reach, and with which credential.

One judge; default-deny. Allow rules are a union and deny rules win: another allow rule never takes
anything away, another deny rule never gives anything. Pure: the same facts always get the same
decision, so a test of a rule is a function call. No method of `Policy` raises, whatever it gets.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from types import MappingProxyType

from claude_proxy.policy.credentials.binding import Binding, Injection, bound_to
from claude_proxy.policy.credentials.decision import (
    NO_CREDENTIAL,
    AvailableSecrets,
    CredentialDecision,
    decide_credential,
)
from claude_proxy.policy.credentials.placeholders import NO_PLACEHOLDERS, Placeholders
from claude_proxy.policy.decision import CREDENTIALS_CHANGED, Decision, allowed_by, denied
from claude_proxy.policy.index import RuleIndex
from claude_proxy.policy.location import Location
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.patterns import HostPattern, PatternKind, any_covers
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import Rule, Tls
from claude_proxy.policy.summary import describe_credential, hidden_changes, restriction_lines
from claude_proxy.policy.verdict import Verdict
from claude_proxy.wire.address import Address, AddressKind, effective, kind_of
from claude_proxy.wire.authority import Authority

# TRACE sends credentials back, TRACK is its twin, CONNECT opens a tunnel in the tunnel.
_REFUSED_METHODS = frozenset({"TRACE", "TRACK", "CONNECT"})
_ORDINARY_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_is_token = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_NO_SECRETS: AvailableSecrets = MappingProxyType({})


class AddressOwner(Enum):
    """Which machine an address that is to be dialled belongs to."""

    OTHER = auto()
    THIS_MACHINE = auto()
    OWN_LISTENER = auto()  # the proxy would connect to itself


@dataclass(frozen=True, slots=True)
class Policy:
    """An allowlist: what no rule allows is denied."""

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    credentials: tuple[Binding, ...] = ()
    # Of the Messages API; the first that covers a target is in force.
    restrictions: tuple[ApiRestrictions, ...] = ()
    _rules: RuleIndex = field(init=False, repr=False, compare=False)
    _placeholders: Placeholders = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rules", RuleIndex(self.allow, self.deny))
        object.__setattr__(self, "_placeholders", _placeholders_of(self.credentials))

    @property
    def allows_by_default(self) -> bool:
        """Whether a host that no rule names is allowed."""
        return any(rule.pattern.kind is PatternKind.EVERY for rule in self.allow)

    @property
    def rules_count(self) -> int:
        """How many rules there are, of both sorts."""
        return len(self.allow) + len(self.deny)

    def hosts(self) -> Iterator[str]:
        """Yield each allow rule's pattern once, in its canonical spelling and the file's order."""
        yield from dict.fromkeys(rule.name for rule in self.allow)

    def with_denials(self, deny: Iterable[Rule]) -> "Policy":
        """Return this policy with more deny rules."""
        return replace(self, deny=(*self.deny, *deny))

    def allowing_by_default(self, source: Location, note: str = "") -> "Policy":
        """Return this policy with everything allowed that no deny rule covers.

        An address that is not public still needs a rule that names it, and a request must still
        agree with where it goes.
        """
        everything = Rule(
            pattern=HostPattern.every(),
            scheme=None,
            ports=None,
            methods=None,
            paths=None,
            tls=Tls.INTERCEPT,
            addresses=(),
            note=note,
            source=source,
        )
        return replace(self, allow=(*self.allow, everything))

    def diff(self, other: "Policy") -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return what `other` has and this one lacks, and the reverse; "deny" marks deny rules."""
        here, there = dict.fromkeys(_shown(self)), dict.fromkeys(_shown(other))
        added = tuple(shown for shown in there if shown not in here)
        added += tuple(hidden_changes(self.credentials, other.credentials))
        removed = tuple(shown for shown in here if shown not in there)
        return added, removed

    # --- tunnels and addresses

    def decide_connect(self, target: Authority) -> Decision:
        """Decide whether a tunnel or connection to `target` may be opened at all."""
        rules = self._rules.find(target)
        return denied(Reason.NO_RULE) if rules is None else rules.at(target.port).connect

    def decide_hello(self, target: Authority, sni: str | None, *, encrypted: bool) -> Decision:
        """Decide whether TLS that begins so may go on in a tunnel to `target`."""
        connect = self.decide_connect(target)
        if not connect.allowed:
            return connect
        if not connect.secure:
            return denied(Reason.SCHEME_NOT_ALLOWED)
        # The outer name of an encrypted hello says nothing about the inner one.
        if encrypted:
            return denied(Reason.ENCRYPTED_HELLO)
        if target.address is not None:
            # RFC 6066, 3: literal addresses are not permitted as SNI.
            return connect if sni is None else denied(Reason.SNI_MISMATCH)
        if sni is None:
            return denied(Reason.SNI_MISSING)
        # Folded only where it is ASCII: the Kelvin sign folds to "k". No trailing dot (RFC 6066).
        same = sni.isascii() and sni.lower() == target.host
        return connect if same else denied(Reason.SNI_MISMATCH)

    def decide_address(
        self, target: Authority, address: Address, owner: AddressOwner = AddressOwner.OTHER
    ) -> Decision:
        """Decide whether `address`, which `target` resolved to, may be dialled.

        A deny rule for a network also denies the names that lead into it; one with methods or
        paths is about requests to the addresses themselves.
        """
        if owner is AddressOwner.OWN_LISTENER:
            return denied(Reason.PROXY_LOOP)
        decision = self._decide_address(target, address)
        if owner is AddressOwner.THIS_MACHINE and decision.allowed:
            return _unless_unlisted(decision, target, address)
        return decision

    def _decide_address(self, target: Authority, address: Address) -> Decision:
        connect = self.decide_connect(target)
        if not connect.allowed:
            return connect
        if (denial := self._rules.denied_address(target, address)) is not None:
            return denial
        if target.address is not None:
            # A rule names the literal, or it would have been denied as a target.
            same = target.address == address
            return connect if same else denied(Reason.ADDRESS_NOT_ALLOWED)
        if kind_of(address) is AddressKind.PUBLIC:
            return connect
        rule = self._rules.naming_rule(target, address)
        return denied(Reason.ADDRESS_NOT_ALLOWED) if rule is None else allowed_by(rule)

    # --- requests

    def evaluate(self, request: Request, secrets: AvailableSecrets = _NO_SECRETS) -> Verdict:
        """Decide everything about one request that its head alone decides."""
        decision = self.decide_request(request)
        if not decision.allowed:
            return Verdict(decision)
        restrictions = self.restrictions_for(request.target)
        if restrictions is not None:
            decision = _restricted_head(decision, restrictions, request)
            if not decision.allowed:
                return Verdict(decision)
        if not self.credentials:
            return Verdict(decision, NO_CREDENTIAL, restrictions)
        credential = self.decide_credential(request, secrets)
        if credential.reason is not None:
            decision = denied(credential.reason)
        return Verdict(decision, credential, restrictions, self.credentials)

    def decide_request(self, request: Request) -> Decision:
        """Decide whether `request` may be forwarded, by the rules alone."""
        method, target = request.method, request.target
        if method not in _ORDINARY_METHODS and not _may_be_a_request(method):
            return denied(Reason.METHOD_REFUSED)
        if request.host != target:
            return denied(Reason.HOST_MISMATCH)
        rules = self._rules.find(target)
        return denied(Reason.NO_RULE) if rules is None else rules.at(target.port).decide(request)

    def decide_head(self, request: Request) -> Decision:
        """Decide about a request by the rules and by what its head asks the Messages API for."""
        decision = self.decide_request(request)
        restrictions = self.restrictions_for(request.target)
        if not decision.allowed or restrictions is None:
            return decision
        return _restricted_head(decision, restrictions, request)

    def decide_content(self, request: Request, body: bytes) -> Decision:
        """Decide about a request by its head and by what its body asks the Messages API for."""
        decision = self.decide_head(request)
        restrictions = self.restrictions_for(request.target)
        if not decision.allowed or restrictions is None:
            return decision
        reason = restrictions.judge_body(request, body, self.allows_url)
        return decision if reason is None else denied(reason)

    def decide_departure(self, request: Request, verdict: Verdict) -> Decision:
        """Decide whether a request may still leave that `verdict` allowed.

        The policy may have been reloaded since: then the credential in it must be the one that is
        still bound to the host.
        """
        then, now, host = verdict.bindings, self.credentials, request.target
        if then is now or bound_to(host, then) == bound_to(host, now):
            return verdict.decision
        return CREDENTIALS_CHANGED

    def decide_credential(self, request: Request, secrets: AvailableSecrets) -> CredentialDecision:
        """Decide which credential an allowed request may carry, and which is injected."""
        if not self.credentials:
            return NO_CREDENTIAL
        return decide_credential(self.credentials, self._placeholders, request, secrets)

    def restrictions_for(self, target: Authority) -> ApiRestrictions | None:
        """Return what restricts the Messages API at `target`, if anything does."""
        for each in self.restrictions:
            here = each.ports is None or target.port in each.ports
            if here and any_covers(each.patterns, target):
                return each
        return None

    def allows_url(self, url: str, method: str = "GET") -> bool:
        """Tell whether a client itself may request `url`: then the API may do so for it."""
        request = _request_for(url, method)
        # On a bound host the login counts, and with whose the API would go there is not seen here.
        return (
            request is not None
            and not self.binds(request.target)
            and self.decide_head(request).allowed
        )

    def allows_trailers(self, target: Authority) -> bool:
        """Tell whether fields may follow a body: none may where they would have been judged."""
        return not self.binds(target) and self.restrictions_for(target) is None

    def binds(self, target: Authority) -> bool:
        """Tell whether a credential is bound to the host of `target`."""
        return bool(bound_to(target, self.credentials))


def _placeholders_of(bindings: Iterable[Binding]) -> Placeholders:
    uses = (binding.use for binding in bindings)
    texts = {use.placeholder for use in uses if isinstance(use, Injection)}
    return Placeholders(texts) if texts else NO_PLACEHOLDERS


def _restricted_head(
    decision: Decision, restrictions: ApiRestrictions, request: Request
) -> Decision:
    reason = restrictions.judge_head(request)
    if reason is not None:
        return denied(reason)
    # No header may replace the path that was judged.
    return decision if decision.restricted else replace(decision, restricted=True)


def _unless_unlisted(decision: Decision, target: Authority, address: Address) -> Decision:
    """Return the decision about an address of this very machine: a rule must name it."""
    rule = decision.rule
    if rule is None:
        return denied(Reason.ADDRESS_NOT_ALLOWED)
    # A rule for every host names no address, not even one that is the target itself.
    if target.address is not None and rule.pattern.kind is not PatternKind.EVERY:
        return decision
    listed = any(effective(address) in network for network in rule.addresses)
    return decision if listed else denied(Reason.ADDRESS_NOT_ALLOWED, rule)


_URL = re.compile(r"(https?)://([^/?#@\\\s]+)(/[\x21-\x7e]*)?", re.ASCII)


def _request_for(url: str, method: str) -> Request | None:
    """Return what a client would send to request `url`; None if that is not plain to see."""
    match = _URL.fullmatch(url)
    if match is None:
        return None
    scheme = Scheme(match[1])
    try:
        target = Authority.parse(match[2], default_port=443 if scheme is Scheme.HTTPS else 80)
    except ValueError:
        return None
    path, _, query = (match[3] or "/").partition("?")
    return Request(scheme, target, target, method, path, query)


def _shown(policy: Policy) -> list[str]:
    return [
        *map(str, policy.allow),
        *(f"deny {rule}" for rule in policy.deny),
        *map(describe_credential, policy.credentials),
        *(line for each in policy.restrictions for line in restriction_lines(each)),
    ]


def _may_be_a_request(method: str) -> bool:
    return _is_token(method) is not None and method.upper() not in _REFUSED_METHODS
