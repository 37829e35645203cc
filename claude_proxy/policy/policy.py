"""The policy: decides which targets a client may reach, and with which credential.

One judge; default-deny. Deny rules win: adding an allow rule never denies anything, and adding a
deny rule never allows anything. Pure: the same arguments always get the same decision, so a test of
a rule is a function call. No method of `Policy` raises an exception, whatever a client sends.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import field
from enum import Enum, auto
from types import MappingProxyType

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.credentials.binding import (
    Binding,
    Injection,
    bound_by_provider,
    bound_to,
)
from claude_proxy.policy.credentials.database import (
    AskedLogin,
    databases_at,
    is_for_requests,
    judge_login,
)
from claude_proxy.policy.credentials.decision import (
    NO_CREDENTIAL,
    AvailableSecrets,
    CredentialDecision,
    decide_credential,
)
from claude_proxy.policy.credentials.placeholders import NO_PLACEHOLDERS, Placeholders
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.decision import (
    CREDENTIALS_CHANGED,
    Decision,
    allowed_by,
    answered_by,
    asked_about,
    denied,
)
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

# TRACE returns the credentials it is sent, TRACK does the same, CONNECT opens a tunnel in a tunnel.
_REFUSED_METHODS = frozenset({"TRACE", "TRACK", "CONNECT"})
_ORDINARY_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_is_token = lazy_pattern(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_NO_SECRETS: AvailableSecrets = MappingProxyType({})


class AddressOwner(Enum):
    """The machine that an address to be dialled belongs to."""

    OTHER = auto()
    THIS_MACHINE = auto()
    OWN_LISTENER = auto()  # the proxy would connect to itself


@dataclass(frozen=True, slots=True)
class Policy:
    """An allowlist: what no rule allows is denied."""

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    credentials: tuple[Binding, ...] = ()
    # Of the Messages API; the first that covers a target applies.
    restrictions: tuple[ApiRestrictions, ...] = ()
    ask: tuple[Rule, ...] = ()  # what the owner is asked about where no rule of `allow` allows it
    _rules: RuleIndex = field(init=False, repr=False, compare=False)
    # Those of the credentials that are for requests, not for databases.
    _for_requests: tuple[Binding, ...] = field(init=False, repr=False, compare=False)
    _placeholders: Placeholders = field(init=False, repr=False, compare=False)
    # This policy with what it asks about allowed, once it has been needed.
    _answered: "list[Policy]" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rules", RuleIndex(self.allow, self.deny))
        object.__setattr__(self, "_placeholders", _placeholders_of(self.credentials))
        object.__setattr__(self, "_answered", [])
        for_requests = tuple(filter(is_for_requests, self.credentials))
        all_are = len(for_requests) == len(self.credentials)
        object.__setattr__(self, "_for_requests", self.credentials if all_are else for_requests)

    @property
    def allows_by_default(self) -> bool:
        """Whether a host that no rule names is allowed."""
        return any(rule.pattern.kind is PatternKind.EVERY for rule in self.allow)

    @property
    def rules_count(self) -> int:
        """The number of its rules."""
        return len(self.allow) + len(self.deny) + len(self.ask)

    def hosts(self) -> Iterator[str]:
        """Yield the pattern of each allow rule once, in the order of the file."""
        yield from dict.fromkeys(rule.name for rule in self.allow)

    def with_denials(self, deny: Iterable[Rule]) -> "Policy":
        """Return this policy with more deny rules."""
        return replace(self, deny=(*self.deny, *deny))

    def allowing_by_default(self, source: Location, note: str = "") -> "Policy":
        """Return this policy, also allowing everything that no deny rule covers.

        An address that is not public still needs a rule that names it, and the Host of a request
        must still match its target.
        """
        return replace(self, allow=(*self.allow, _everything(source, note)))

    def asking_by_default(self, source: Location, note: str = "") -> "Policy":
        """Return this policy, also asking about everything that no deny rule covers.

        What is said of `allowing_by_default` holds for what the owner allows.
        """
        everything = replace(_everything(source, note), asks=True)
        return replace(self, ask=(*self.ask, everything))

    @property
    def asks_by_default(self) -> bool:
        """Whether the owner is asked about a host that no rule names."""
        return any(rule.pattern.kind is PatternKind.EVERY for rule in self.ask)

    def as_answered(self) -> "Policy":
        """Return the policy in which everything that this one asks about is allowed."""
        if not self.ask:
            return self
        if not self._answered:
            allow = (*self.allow, *(replace(rule, asks=False) for rule in self.ask))
            self._answered.append(
                AnsweredPolicy(
                    allow=allow,
                    deny=self.deny,
                    credentials=self.credentials,
                    restrictions=self.restrictions,
                    asking=self,
                )
            )
        return self._answered[0]

    def diff(self, other: "Policy") -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the lines that `other` adds and those that it lacks, one for each entry."""
        here, there = dict.fromkeys(_shown(self)), dict.fromkeys(_shown(other))
        added = tuple(shown for shown in there if shown not in here)
        added += tuple(hidden_changes(self.credentials, other.credentials))
        removed = tuple(shown for shown in here if shown not in there)
        return added, removed

    def is_loosened_by(self, other: "Policy") -> bool:
        """Tell whether `other` lacks a denial, a credential or a restriction of this policy."""
        return not set(_protections(self)) <= set(_protections(other))

    # --- tunnels and addresses

    def decide_tunnel(self, target: Authority, answer: Answer | None = None) -> Decision:
        """Decide whether a tunnel to `target` may be opened, for a client that asked for one.

        `answer` is what the owner said about this attempt, if that was asked for.
        """
        decision = self.decide_connect(target)
        if decision.allowed or not self.ask:
            return decision
        return _asked(self.as_answered().decide_connect(target), answer)

    def decide_connect(self, target: Authority) -> Decision:
        """Decide whether a connection to `target` may be opened, without asking anybody."""
        rules = self._rules.find(target)
        if rules is None:
            return denied(Reason.NO_RULE)
        decision = rules.at(target.port).connect
        if decision.raw and self._judges_requests(target):
            return denied(Reason.SCHEME_NOT_ALLOWED, decision.rule)
        return decision

    def _judges_requests(self, target: Authority) -> bool:
        """Return whether what is sent to the host is judged, so that no bytes may pass unseen.

        On every port: another service of the host takes the same accounts.
        """
        if _bindings_for(target, self._for_requests):
            return True
        if len(databases_at(target, self.credentials)) > 1:
            return True  # nobody knows which login is meant
        return any(each.narrows and any_covers(each.patterns, target) for each in self.restrictions)

    def decide_raw(self, target: Authority) -> Decision:
        """Decide about bytes that are neither TLS nor HTTP, in a tunnel to `target`.

        Only a rule with scheme tcp allows them.
        """
        connect = self.decide_connect(target)
        if not connect.allowed or connect.raw:
            return connect
        return denied(Reason.NOT_TLS, connect.rule)

    def database_at(self, target: Authority) -> Binding | None:
        """Return the credential by which the proxy logs in to the database at `target`."""
        return next(iter(databases_at(target, self.credentials)), None)

    def decide_tunnel_credential(self, target: Authority) -> CredentialDecision:
        """Decide which credential a tunnel of a rule for tcp is for."""
        binding = self.database_at(target)
        return NO_CREDENTIAL if binding is None else CredentialDecision(credential=binding.name)

    def decide_login(
        self, target: Authority, asked: AskedLogin, secrets: AvailableSecrets
    ) -> Decision:
        """Decide about a login to the database at `target`, to which a credential is bound."""
        connect, binding = self.decide_connect(target), self.database_at(target)
        if not connect.allowed:
            return connect
        if not connect.raw or binding is None:
            return denied(Reason.FOREIGN_CREDENTIAL, connect.rule)
        reason = judge_login(binding, asked)
        if reason is None and not isinstance(secrets.get(binding.name), Secret):
            reason = Reason.CREDENTIAL_UNAVAILABLE
        return connect if reason is None else denied(reason, connect.rule)

    def decide_hello(
        self, target: Authority, sni: str | None, *, encrypted: bool, tls: Tls | None
    ) -> Decision:
        """Decide about a ClientHello with server name `sni` in a tunnel to `target`.

        `encrypted` means that it has an encrypted inner ClientHello, or what looks like one; `tls`
        is what is done with TLS in this tunnel.
        """
        connect = self.decide_tunnel(target)
        if not connect.allowed and not connect.asks:
            return connect
        if not connect.secure:
            return denied(Reason.SCHEME_NOT_ALLOWED)
        # The outer name of an encrypted ClientHello says nothing about the inner one, which the
        # upstream would read. Where TLS is intercepted nobody reads it: this proxy has no key for
        # it, answers for the outer name, and sends a ClientHello of its own upstream.
        if encrypted and tls is not Tls.INTERCEPT:
            return denied(Reason.ENCRYPTED_HELLO)
        if target.address is not None:
            # RFC 6066 section 3: IP addresses are not permitted as SNI.
            return connect if sni is None else denied(Reason.SNI_MISMATCH)
        if sni is None:
            return denied(Reason.SNI_MISSING)
        # ASCII only, as lower() turns the Kelvin sign into "k". No trailing dot (RFC 6066).
        same = sni.isascii() and sni.lower() == target.host
        return connect if same else denied(Reason.SNI_MISMATCH)

    def decide_address(
        self, target: Authority, address: Address, owner: AddressOwner = AddressOwner.OTHER
    ) -> Decision:
        """Decide whether `address`, which `target` resolved to, may be dialled.

        A deny rule for a network also denies the names that resolve into it, unless it has methods
        or paths: then it only applies to requests for the addresses themselves.
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
        if (denial := self._rules.denied_address(target, address, raw=connect.raw)) is not None:
            return denial
        if target.address is not None:
            # A rule covers this literal; otherwise it would have been denied as a target.
            same = target.address == address
            return connect if same else denied(Reason.ADDRESS_NOT_ALLOWED)
        if kind_of(address) is AddressKind.PUBLIC:
            return connect
        rule = self._rules.naming_rule(target, address)
        return denied(Reason.ADDRESS_NOT_ALLOWED) if rule is None else allowed_by(rule)

    # --- requests

    def evaluate(
        self,
        request: Request,
        secrets: AvailableSecrets = _NO_SECRETS,
        answer: Answer | None = None,
    ) -> Verdict:
        """Decide about one request as far as its head determines.

        `answer` is what the owner said about this request, if that was asked for.
        """
        verdict = self._evaluate(request, secrets)
        if verdict.decision.allowed or not self.ask:
            return verdict
        verdict = self.as_answered()._evaluate(request, secrets)  # noqa: SLF001 - also a Policy
        decision = _asked(verdict.decision, answer)
        return verdict._replace(decision=decision) if decision.allowed else Verdict(decision)

    def _evaluate(self, request: Request, secrets: AvailableSecrets) -> Verdict:
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
        return Verdict(decision, credential, restrictions, self._for_requests)

    def decide_request(self, request: Request) -> Decision:
        """Decide by the rules alone whether `request` may be forwarded."""
        method, target = request.method, request.target
        if method not in _ORDINARY_METHODS and not _may_be_a_request(method):
            return denied(Reason.METHOD_REFUSED)
        if request.host != target:
            return denied(Reason.HOST_MISMATCH)
        rules = self._rules.find(target)
        return denied(Reason.NO_RULE) if rules is None else rules.at(target.port).decide(request)

    def decide_head(self, request: Request) -> Decision:
        """Decide about a request by the rules and by the API restrictions on its head."""
        decision = self.decide_request(request)
        restrictions = self.restrictions_for(request.target)
        if not decision.allowed or restrictions is None:
            return decision
        return _restricted_head(decision, restrictions, request)

    def head_without_answer(self, request: Request) -> Decision:
        """Decide as `decide_head` does; where the owner would be asked, the decision `asks`."""
        decision = self.decide_head(request)
        if decision.allowed or not self.ask:
            return decision
        return _asked(self.as_answered().decide_head(request), None)

    def address_without_answer(
        self, target: Authority, address: Address, owner: AddressOwner = AddressOwner.OTHER
    ) -> Decision:
        """Decide as `decide_address` does; where the owner would be asked, the decision `asks`."""
        decision = self.decide_address(target, address, owner)
        if decision.allowed or not self.ask:
            return decision
        return _asked(self.as_answered().decide_address(target, address, owner), None)

    def decide_content(self, request: Request, body: bytes) -> Decision:
        """Decide about a request by the rules and by the API restrictions on head and body."""
        decision = self.decide_head(request)
        restrictions = self.restrictions_for(request.target)
        if not decision.allowed or restrictions is None:
            return decision
        reason = restrictions.judge_body(request, body, self.allows_url)
        return decision if reason is None else denied(reason)

    def decide_departure(self, request: Request, verdict: Verdict) -> Decision:
        """Decide whether a request that `verdict` allowed may still be sent.

        If the policy has been reloaded since, the same credentials must still be bound to the host.
        """
        then, now, host = verdict.bindings, self._for_requests, request.target
        if then is now or _bindings_for(host, then) == _bindings_for(host, now):
            return verdict.decision
        return CREDENTIALS_CHANGED

    def decide_credential(self, request: Request, secrets: AvailableSecrets) -> CredentialDecision:
        """Decide which credential an allowed request may carry, and which is injected."""
        if not self.credentials:
            return NO_CREDENTIAL
        return decide_credential(self._for_requests, self._placeholders, request, secrets)

    def restrictions_for(self, target: Authority) -> ApiRestrictions | None:
        """Return the restrictions of the Messages API at `target`; None if there are none."""
        for each in self.restrictions:
            here = each.ports is None or target.port in each.ports
            if here and any_covers(each.patterns, target):
                return each
        return None

    def judges_paths(self, target: Authority) -> bool:
        """Return whether a decision about a request to `target` depends on its path."""
        if self.restrictions_for(target) is not None:
            return True
        rules = self._rules.find(target)
        return rules is not None and rules.at(target.port).judges_paths

    def allows_url(self, url: str, method: str = "GET") -> bool:
        """Return whether a client itself may request `url`: then the API may do so for it."""
        request = _request_for(url, method)
        # On a bound host only one login is allowed, and the API's own login there is unknown.
        return (
            request is not None
            and not _bindings_for(request.target, self._for_requests)
            and self.decide_head(request).allowed
        )

    def allows_trailers(self, target: Authority) -> bool:
        """Return whether bodies may have trailers: not where these would have to be judged."""
        return not self.binds(target) and self.restrictions_for(target) is None

    def binds(self, target: Authority) -> bool:
        """Return whether a credential for requests is bound to the host of `target`."""
        return bool(bound_to(target, self._for_requests))


@dataclass(frozen=True, slots=True)
class AnsweredPolicy(Policy):
    """A policy in which everything that another one asks about is allowed.

    For attempts that the owner has allowed, and to find out what is to be asked about.
    """

    asking: Policy = field(default_factory=Policy, repr=False)

    def allows_url(self, url: str, method: str = "GET") -> bool:
        """Tell whether the API may fetch `url` for a client: nobody was asked about that."""
        return self.asking.allows_url(url, method)


def _asked(decision: Decision, answer: Answer | None) -> Decision:
    """Return the decision about what would be decided so if the owner said yes."""
    if not decision.allowed:
        return decision
    if answer is None or answer is Answer.AGAIN:
        return asked_about(decision)
    return answered_by(decision, answer)


def _everything(source: Location, note: str) -> Rule:
    return Rule(
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


def _bindings_for(target: Authority, bindings: Iterable[Binding]) -> list[Binding]:
    """Return the bindings that decide which logins the host of `target` takes."""
    return bound_to(target, bindings) or bound_by_provider(target, bindings)


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
    # `restricted` removes header fields that could override the path.
    return decision if decision.restricted else replace(decision, restricted=True)


def _unless_unlisted(decision: Decision, target: Authority, address: Address) -> Decision:
    """Return the decision about an address of this machine, which a rule must name."""
    rule = decision.rule
    if rule is None:
        return denied(Reason.ADDRESS_NOT_ALLOWED)
    # A rule for every host does not name an address, even if the target is one.
    if target.address is not None and rule.pattern.kind is not PatternKind.EVERY:
        return decision
    listed = any(effective(address) in network for network in rule.addresses)
    return decision if listed else denied(Reason.ADDRESS_NOT_ALLOWED, rule)


_URL = lazy_pattern(r"(https?)://([^/?#@\\\s]+)(/[\x21-\x7e]*)?", re.ASCII)


def _request_for(url: str, method: str) -> Request | None:
    """Return a client's request for `url`; None if the URL is not unambiguous."""
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
    asked = (f"ask {replace(rule, asks=False)}" for rule in policy.ask)
    return [*map(str, policy.allow), *asked, *_protections(policy)]


def _protections(policy: Policy) -> list[str]:
    return [
        *(f"deny {rule}" for rule in policy.deny),
        *map(describe_credential, policy.credentials),
        *(line for each in policy.restrictions for line in restriction_lines(each)),
    ]


def _may_be_a_request(method: str) -> bool:
    return _is_token(method) is not None and method.upper() not in _REFUSED_METHODS
