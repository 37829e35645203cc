"""Decides and records in one step: the one function that everything which could let bytes out asks.

Law 7: a decision that cannot be recorded is a denial. Law 8: a fault denies. Both are kept
here and nowhere else, so no layer can forget them.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import Protocol

from claude_proxy.config.settings import AuditFailure
from claude_proxy.errors import AuditError
from claude_proxy.events import PASSTHROUGH_SCHEME, DecisionMade, Event, OutcomeSeen, Phase
from claude_proxy.policy.credentials.decision import (
    NO_CREDENTIAL,
    AvailableSecrets,
    Binding,
    CredentialDecision,
)
from claude_proxy.policy.policy import Decision, Policy, Tls, bound_to
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request
from claude_proxy.proxy.inspection.base import InspectorChain, ResponseInspector
from claude_proxy.proxy.inspection.leak_guard import LeakGuard
from claude_proxy.proxy.inspection.usage_meter import UsageMeter, readable_encodings
from claude_proxy.wire.authority import Authority

logger = logging.getLogger(__name__)

type Record = Callable[[Event], None]

# Bytes of bodies that may wait to be judged, all connections together.
_HELD_LIMIT = 512 * 1024 * 1024
_MESSAGES = "/v1/messages"


class SecretProvider(Protocol):
    """Whoever holds the values of the credentials."""

    @property
    def holdings(self) -> AvailableSecrets:
        """What is known now of each binding."""

    def learn(self, name: str, login: tuple[bytes, bytes], /) -> None:
        """Pin the first login of a binding, for good.

        OSError: it cannot be kept; without an `errno`: another one was first.
        """

    def answered(self, name: str, status: int) -> None:
        """Take note of how an upstream answered to a credential."""


class _NoSecrets:
    """The custodian of a proxy without credentials."""

    holdings: AvailableSecrets = MappingProxyType({})

    def learn(self, name: str, _: tuple[bytes, bytes], /) -> None:
        raise LookupError(name)

    def answered(self, name: str, status: int) -> None:
        pass


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """Where an attempt came from: one client connection on one listener."""

    connection: int
    client: str
    listener: str


@dataclass(slots=True)
class Attempt:
    """A recorded decision, and what is known so far of how the attempt ended."""

    decision: Decision
    id: int
    started: float  # time.monotonic()
    first_byte: float | None = None
    status: int | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    upstream: str | None = None
    error: str | None = None
    ended: bool = False
    custody: CredentialDecision = NO_CREDENTIAL
    meter: UsageMeter | None = None  # reads what the answer says that it has cost
    held: int = 0  # bytes of the body that wait to be judged
    bindings: tuple[Binding, ...] = ()  # of the policy that the custody is by


class Gate:
    """The policy enforcement point: facts in, a recorded decision out."""

    def __init__(
        self,
        policy: Policy,
        record: Record,
        *,
        custodian: SecretProvider | None = None,
        audit_failure: AuditFailure = AuditFailure.DENY,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.policy = policy
        self._record = record
        self._custodian = custodian or _NoSecrets()
        self._held = 0
        self._allow_unrecorded = audit_failure is AuditFailure.ALLOW
        self._clock_ns = clock_ns
        self._last_id = 0
        self._audit_works = True

    def connect(self, origin: ClientInfo, target: Authority, *, method: str = "CONNECT") -> Attempt:
        """Decide whether a tunnel to `target` may be opened; `method` is how it was asked for."""
        return self._settle(
            origin,
            lambda: self.policy.decide_connect(target),
            Phase.CONNECT,
            target,
            method=method,
        )

    def hello(
        self, origin: ClientInfo, target: Authority, sni: str | None, *, encrypted: bool
    ) -> Attempt | None:
        """Decide whether a ClientHello agrees with its tunnel; None: it does.

        Agreement is part of the tunnel's own decision; only a disagreement is a new fact.
        """
        decision = _decided(lambda: self.policy.decide_hello(target, sni, encrypted=encrypted))
        if decision.allowed:
            return None
        return self._settle(origin, lambda: decision, Phase.HELLO, target, scheme="https")

    def request(self, origin: ClientInfo, request: Request, shown_path: str) -> Attempt:
        """Decide whether one request may be forwarded, and with which credential."""
        custody = NO_CREDENTIAL

        def decide() -> Decision:
            nonlocal custody
            policy = self.policy
            decision = policy.decide_narrowed(request)
            if decision.allowed and policy.credentials:
                custody = policy.custody_of(request, self._custodian.holdings)
                if custody.reason is not None:
                    return Decision(False, custody.reason)
            return decision

        def settled(decide: Callable[[], Decision]) -> Attempt:
            return self._settle(
                origin,
                decide,
                Phase.REQUEST,
                request.target,
                scheme=request.scheme.value,
                method=request.method,
                path=shown_path,
                credential=lambda: custody.credential,
            )

        passage = settled(decide)
        if passage.decision.allowed and custody.learned is not None:
            # Only now: a request that cannot be recorded is denied, and pins nothing.
            decision = _decided(lambda: self._pinned(custody, passage.decision))
            if not decision.allowed:
                passage.error, passage.status = decision.reason.value, 403
                self.end(passage)
                passage = settled(lambda: decision)
        if passage.decision.allowed and self._is_metered(custody, request):
            custody = _legible(custody, request)
        passage.custody, passage.bindings = custody, self.policy.credentials
        return passage

    def _pinned(self, custody: CredentialDecision, decision: Decision) -> Decision:
        """Pin the login that a request shows first; return `decision`, or why it may not pass."""
        if custody.learned is None or custody.credential is None:
            return decision
        try:
            self._custodian.learn(custody.credential, custody.learned)
        except OSError as error:
            if error.errno is None:  # another was first, by a hair
                return Decision(False, Reason.FOREIGN_CREDENTIAL)
            logger.error("a login cannot be pinned (%s); it is denied", error.strerror)  # noqa: TRY400
            return Decision(False, Reason.CREDENTIAL_UNAVAILABLE)
        return decision

    def holds_body(self, request: Request) -> int | None:
        """Return how long a body may be that is judged before any of it leaves; None: it is not."""
        narrowing = self.policy.narrowing_of(request.target)
        if narrowing is None or not narrowing.reads(request):
            return None
        return narrowing.max_bytes

    @property
    def is_crowded(self) -> bool:
        """Whether more than half of the room for bodies that wait to be judged is taken."""
        return self._held > _HELD_LIMIT // 2

    def hold(self, passage: Attempt, size: int) -> bool:
        """Tell whether there is room for `size` more bytes of a body that waits to be judged."""
        if self._held + size > _HELD_LIMIT:
            return False
        self._held += size
        passage.held += size
        return True

    def content(
        self, origin: ClientInfo, passage: Attempt, request: Request, body: bytes
    ) -> Decision:
        """Decide whether a request whose head was allowed may ask for what its body says.

        What is allowed was recorded with the head; only a denial is a new fact.
        """
        decision = _decided(lambda: self._of_content(passage, request, body))
        if decision.allowed:
            return decision
        return self._denied(origin, passage, request, Phase.CONTENT, decision)

    def leave(self, origin: ClientInfo, passage: Attempt, request: Request) -> Decision:
        """Decide whether a request may still go, now that there is a connection for it."""
        # A reload during the dial: what is put in may be for nobody any more.
        if self._is_bound_as_before(passage, request):
            return passage.decision
        decision = Decision(False, Reason.CREDENTIAL_UNAVAILABLE)
        return self._denied(origin, passage, request, Phase.DIAL, decision)

    def _denied(
        self,
        origin: ClientInfo,
        passage: Attempt,
        request: Request,
        phase: Phase,
        decision: Decision,
    ) -> Decision:
        """Record that a request ends that was allowed before."""
        denied = self._settle(
            origin,
            lambda: decision,
            phase,
            request.target,
            scheme=request.scheme.value,
            method=request.method,
            path=request.path,
        )
        passage.error, denied.status = denied.decision.reason.value, 403
        self.end(denied)
        return denied.decision

    def takes_trailers(self, request: Request) -> bool:
        """Tell whether fields may follow the body: none may where they would have been judged."""
        policy, target = self.policy, request.target
        return not policy.binds(target) and policy.narrowing_of(target) is None

    def _of_content(self, passage: Attempt, request: Request, body: bytes) -> Decision:
        # A reload while the body was waiting: what was to be put in may be for nobody any more.
        if not self._is_bound_as_before(passage, request):
            return Decision(False, Reason.CREDENTIAL_UNAVAILABLE)
        return self.policy.decide_content(request, body)

    def _is_bound_as_before(self, passage: Attempt, request: Request) -> bool:
        """Tell whether a request's host has the credentials that it was judged by."""
        now = self.policy.credentials
        if passage.bindings is now:  # as long as no reload has come
            return True
        host = request.target
        return bound_to(host, passage.bindings) == bound_to(host, now)

    def watch(self, passage: Attempt, request: Request) -> ResponseInspector | None:
        """Return what has to see the answer, if anything has."""
        watches: list[ResponseInspector] = []
        if passage.custody.guarded:
            watches.append(LeakGuard(passage.custody.guarded))
        if self._is_metered(passage.custody, request):
            passage.meter = UsageMeter()
            watches.append(passage.meter)
        if not watches:
            return None
        return watches[0] if len(watches) == 1 else InspectorChain(watches)

    def _is_metered(self, custody: CredentialDecision, request: Request) -> bool:
        """Tell whether the answer says what it has cost, and somebody wants to know."""
        if request.method != "POST" or not request.path.endswith(_MESSAGES):
            return False
        return bool(custody.credential) or self.policy.narrowing_of(request.target) is not None

    def dial(self, origin: ClientInfo, target: Authority) -> Decision:
        """Decide once more, right before a dial: the policy may have changed since the request."""
        decision = _decided(lambda: self.policy.decide_connect(target))
        if not decision.allowed:
            decision = self._settle(origin, lambda: decision, Phase.DIAL, target).decision
        return decision

    def holds(self, target: Authority, *, passthrough: bool) -> bool:
        """Tell whether an open tunnel may stay so; only its end would be a new fact."""
        decision = _decided(lambda: self.policy.decide_connect(target))
        # What passes through unseen must not outlive the rule that let it be unseen.
        return decision.allowed and (not passthrough or decision.tls is Tls.PASSTHROUGH)

    def holds_request(self, request: Request) -> bool:
        """Tell whether what a request has opened, a WebSocket, may stay open."""
        return _decided(lambda: self.policy.decide_request(request)).allowed

    def address(
        self, origin: ClientInfo, target: Authority, address: IPv4Address | IPv6Address
    ) -> Decision:
        """Decide whether `target` may lead to `address`; only a denial is recorded.

        The address of an allowed dial is in the outcome of the request that wanted it.
        """
        decision = _decided(lambda: self.policy.decide_address(target, address))
        if not decision.allowed:
            decision = self._settle(origin, lambda: decision, Phase.DIAL, target).decision
        return decision

    def refuse(  # noqa: PLR0913 - each fact is a column of its own
        self,
        origin: ClientInfo,
        phase: Phase,
        reason: Reason,
        target: str | Authority,
        *,
        method: str = "",
        scheme: str = "",
        path: str = "",
    ) -> Attempt:
        """Record a denial that needs no rule: an unreadable target, a stranger, no TLS."""
        decision = Decision(False, reason)
        return self._settle(
            origin, lambda: decision, phase, target, scheme=scheme, method=method, path=path
        )

    def answered(self, passage: Attempt, status: int | None) -> None:
        """Note that the answer's head is here."""
        passage.status = status
        passage.first_byte = time.monotonic()
        if passage.custody.credential is not None and status is not None:
            self._custodian.answered(passage.custody.credential, status)

    def end(self, passage: Attempt, error: str | None = None) -> None:
        """Record how an attempt ended; once, whoever is first."""
        if passage.ended:
            return
        passage.ended = True
        self._held -= passage.held
        started, first = passage.started, passage.first_byte
        outcome = OutcomeSeen(
            decision=passage.id,
            status=passage.status,
            bytes_up=passage.bytes_up,
            bytes_down=passage.bytes_down,
            duration_ms=round((time.monotonic() - started) * 1000, 3),
            first_byte_ms=None if first is None else round((first - started) * 1000, 3),
            upstream=passage.upstream,
            error=error if error is not None else passage.error,
            usage=None if passage.meter is None else passage.meter.usage,
        )
        try:
            self._record(outcome)
        except AuditError as problem:
            self._audit_fails(problem)

    def _settle(  # noqa: PLR0913
        self,
        origin: ClientInfo,
        decide: Callable[[], Decision],
        phase: Phase,
        target: str | Authority,
        *,
        scheme: str = "",
        method: str = "",
        path: str = "",
        credential: Callable[[], str | None] = lambda: None,
    ) -> Attempt:
        """Return the recorded decision; deny if deciding or recording fails."""
        decision = _decided(decide)
        number = self._next_id()
        rule = decision.rule
        if phase is Phase.CONNECT and decision.tls is Tls.PASSTHROUGH:
            scheme = PASSTHROUGH_SCHEME
        try:
            self._record(
                DecisionMade(
                    id=number,
                    connection=origin.connection,
                    client=origin.client,
                    listener=origin.listener,
                    phase=phase,
                    scheme=scheme,
                    target=str(target),
                    method=method,
                    path=path,
                    allowed=decision.allowed,
                    reason=decision.reason.value,
                    rule=None if rule is None else rule.name,
                    rule_source=None if rule is None else str(rule.source),
                    credential=credential(),
                )
            )
            self._audit_works = True
        except AuditError as problem:
            self._audit_fails(problem)
            if not self._allow_unrecorded:
                decision = Decision(False, Reason.AUDIT_FAILED)
        except Exception:  # Laws 7 and 8 together
            logger.exception("recording failed")
            decision = Decision(False, Reason.INTERNAL_ERROR)
        return Attempt(decision, number, time.monotonic())

    def _next_id(self) -> int:
        self._last_id = max(self._clock_ns(), self._last_id + 1)
        return self._last_id

    def _audit_fails(self, problem: AuditError) -> None:
        # Once per outage: under load the same line thousands of times would hide the rest.
        if self._audit_works:
            self._audit_works = False
            then = "allowed, as asked for" if self._allow_unrecorded else "denied"
            logger.error("%s; until this is fixed everything is %s", problem.what, then)


def _legible(custody: CredentialDecision, request: Request) -> CredentialDecision:
    """Have an answer asked for in a coding that the meter can read."""
    coding = None if custody.guarded else readable_encodings(request.fields)
    if coding is None:
        return custody
    field = (b"Accept-Encoding", coding)
    drop = custody.drop | {field[0].lower()}
    return replace(custody, drop=drop, extra=(*custody.extra, field))


def _decided(decide: Callable[[], Decision]) -> Decision:
    try:
        return decide()
    except Exception:  # Law 8: whatever went wrong, nothing leaves
        logger.exception("deciding failed")
        return Decision(False, Reason.INTERNAL_ERROR)
