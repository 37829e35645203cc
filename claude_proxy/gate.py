"""Decides and records in one step: the one function that everything which could let bytes out asks.

Law 7: a decision that cannot be recorded is a denial. Law 8: a fault denies. Both are kept
here and nowhere else, so no layer can forget them.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from claude_proxy.authority import Authority
from claude_proxy.errors import AuditError
from claude_proxy.events import OPAQUE, DecisionMade, Event, OutcomeSeen, Phase
from claude_proxy.policy import Decision, Policy, Reason, Request, Tls
from claude_proxy.settings import AuditFailure

logger = logging.getLogger(__name__)

type Record = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an attempt came from: one client connection on one listener."""

    connection: int
    client: str
    listener: str


@dataclass(slots=True)
class Passage:
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


class Gate:
    """The policy enforcement point: facts in, a recorded decision out."""

    def __init__(
        self,
        policy: Policy,
        record: Record,
        *,
        audit_failure: AuditFailure = AuditFailure.DENY,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.policy = policy
        self._record = record
        self._allow_unrecorded = audit_failure is AuditFailure.ALLOW
        self._clock_ns = clock_ns
        self._last_id = 0
        self._audit_works = True

    def connect(self, origin: Origin, target: Authority, *, method: str = "CONNECT") -> Passage:
        """Decide whether a tunnel to `target` may be opened; `method` is how it was asked for."""
        return self._settle(
            origin,
            lambda: self.policy.decide_connect(target),
            Phase.CONNECT,
            target,
            method=method,
        )

    def hello(
        self, origin: Origin, target: Authority, sni: str | None, *, encrypted: bool
    ) -> Passage | None:
        """Decide whether a ClientHello agrees with its tunnel; None: it does.

        Agreement is part of the tunnel's own decision; only a disagreement is a new fact.
        """
        decision = _decided(lambda: self.policy.decide_hello(target, sni, encrypted=encrypted))
        if decision.allowed:
            return None
        return self._settle(origin, lambda: decision, Phase.HELLO, target, scheme="https")

    def request(self, origin: Origin, request: Request, shown_path: str) -> Passage:
        """Decide whether one request may be forwarded."""
        return self._settle(
            origin,
            lambda: self.policy.decide_request(request),
            Phase.REQUEST,
            request.target,
            scheme=request.scheme.value,
            method=request.method,
            path=shown_path,
        )

    def dial(self, origin: Origin, target: Authority) -> Decision:
        """Decide once more, right before a dial: the policy may have changed since the request."""
        decision = _decided(lambda: self.policy.decide_connect(target))
        if not decision.allowed:
            decision = self._settle(origin, lambda: decision, Phase.DIAL, target).decision
        return decision

    def holds(self, target: Authority, *, opaque: bool) -> bool:
        """Tell whether an open tunnel may stay so; only its end would be a new fact."""
        decision = _decided(lambda: self.policy.decide_connect(target))
        # What passes through unseen must not outlive the rule that let it be unseen.
        return decision.allowed and (not opaque or decision.tls is Tls.PASSTHROUGH)

    def holds_request(self, request: Request) -> bool:
        """Tell whether what a request has opened, a WebSocket, may stay open."""
        return _decided(lambda: self.policy.decide_request(request)).allowed

    def address(
        self, origin: Origin, target: Authority, address: IPv4Address | IPv6Address
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
        origin: Origin,
        phase: Phase,
        reason: Reason,
        target: str | Authority,
        *,
        method: str = "",
        scheme: str = "",
        path: str = "",
    ) -> Passage:
        """Record a denial that needs no rule: an unreadable target, a stranger, no TLS."""
        decision = Decision(False, reason)
        return self._settle(
            origin, lambda: decision, phase, target, scheme=scheme, method=method, path=path
        )

    @staticmethod
    def answered(passage: Passage, status: int | None) -> None:
        """Note that the answer's head is here."""
        passage.status = status
        passage.first_byte = time.monotonic()

    def end(self, passage: Passage, error: str | None = None) -> None:
        """Record how an attempt ended; once, whoever is first."""
        if passage.ended:
            return
        passage.ended = True
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
        )
        try:
            self._record(outcome)
        except AuditError as problem:
            self._audit_fails(problem)

    def _settle(  # noqa: PLR0913
        self,
        origin: Origin,
        decide: Callable[[], Decision],
        phase: Phase,
        target: str | Authority,
        *,
        scheme: str = "",
        method: str = "",
        path: str = "",
    ) -> Passage:
        """Return the recorded decision; deny if deciding or recording fails."""
        decision = _decided(decide)
        number = self._next_id()
        rule = decision.rule
        if phase is Phase.CONNECT and decision.tls is Tls.PASSTHROUGH:
            scheme = OPAQUE
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
        return Passage(decision, number, time.monotonic())

    def _next_id(self) -> int:
        self._last_id = max(self._clock_ns(), self._last_id + 1)
        return self._last_id

    def _audit_fails(self, problem: AuditError) -> None:
        # Once per outage: under load the same line thousands of times would hide the rest.
        if self._audit_works:
            self._audit_works = False
            then = "allowed, as asked for" if self._allow_unrecorded else "denied"
            logger.error("%s; until this is mended everything is %s", problem.what, then)


def _decided(decide: Callable[[], Decision]) -> Decision:
    try:
        return decide()
    except Exception:  # Law 8: whatever went wrong, nothing leaves
        logger.exception("deciding failed")
        return Decision(False, Reason.INTERNAL_ERROR)
