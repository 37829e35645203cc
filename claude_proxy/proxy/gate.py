"""The gate: the policy enforcement point, which decides and records in one step.

Every layer that could let bytes out asks it. Laws kept: recorded or denied: a decision that cannot
be recorded is a denial. Fail closed: an internal error is a denial. Both laws are kept only here,
so no layer can forget them. The policy alone decides.
"""

import hmac
import logging
import os
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from types import MappingProxyType
from typing import Protocol, TypedDict

from claude_proxy.audit.owner import name_of, owner_of
from claude_proxy.config.settings import AuditFailure
from claude_proxy.errors import AuditError
from claude_proxy.events import (
    PASSTHROUGH_SCHEME,
    TCP_SCHEME,
    WARM_UPSTREAM,
    DecisionMade,
    Event,
    Notice,
    OutcomeSeen,
    Phase,
    Usage,
)
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.credentials.binding import Binding
from claude_proxy.policy.credentials.database import AskedLogin
from claude_proxy.policy.credentials.decision import AvailableSecrets, CredentialDecision
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.decision import (
    ANOTHER_LOGIN_PINNED,
    CA_UNUSABLE,
    FAULT,
    LOGIN_NOT_PINNED,
    TOO_MANY_NAMES,
    UNRECORDED,
    Decision,
    denied,
)
from claude_proxy.policy.grants import number_of
from claude_proxy.policy.lookups import LookupDecision, decide_lookup
from claude_proxy.policy.policy import AddressOwner, Policy
from claude_proxy.policy.questions import Access, Facts
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request
from claude_proxy.policy.rules import Tls
from claude_proxy.policy.verdict import Verdict
from claude_proxy.proxy.client_tls import PROMPT_S
from claude_proxy.proxy.granting import GrantSource
from claude_proxy.proxy.inspection.base import InspectorChain, ResponseInspector
from claude_proxy.proxy.inspection.leak_guard import LeakGuard
from claude_proxy.proxy.inspection.usage_meter import UsageMeter, readable_encodings
from claude_proxy.proxy.name_limits import NameLimits
from claude_proxy.proxy.rare_warnings import RareWarnings
from claude_proxy.wire.address import Address
from claude_proxy.wire.authority import Authority, text_of

logger = logging.getLogger(__name__)

# Returns the id under which an event was recorded; None: its own.
type Record = Callable[[Event], int | None]

LOOKUP = "LOOKUP"  # in the audit log, where a tunnel has CONNECT
_LOOKUP_PORT = 443  # of its target there, as a lookup has none
_NEW_NAME = "name-lookup"  # the kind of a notice

# Most bytes of request bodies that may wait to be judged, over all connections.
_HELD_LIMIT = 512 * 1024 * 1024


class SecretProvider(Protocol):
    """Provides the values of the credentials."""

    @property
    def secrets(self) -> AvailableSecrets:
        """The secrets that are available now, by the name of their binding."""

    def learn(self, name: str, login: tuple[bytes, bytes], /) -> None:
        """Pin the first login of a binding permanently.

        Raises OSError if it cannot be stored; without an `errno` if another login is pinned.
        """

    def answered(self, name: str, status: int) -> None:
        """Note the status of an upstream's response to a request with a credential."""


class NoSecrets:
    """The provider of a proxy without credentials."""

    secrets: AvailableSecrets = MappingProxyType({})

    def learn(self, name: str, _: tuple[bytes, bytes], /) -> None:
        """Refuse: there is no binding."""
        raise LookupError(name)

    def answered(self, name: str, status: int) -> None:
        """Ignore it: there is no binding."""


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """The origin of an attempt: one client connection on one listener."""

    connection: int
    client: str
    listener: str
    run: str | None = None  # the name of the run that the client belongs to
    # Allowed attempts that have not ended, by id: a later denial is the end of one of them.
    attempts: "dict[int, Attempt]" = field(default_factory=dict, compare=False, repr=False)

    def of_run(self, shown: str, name: str | None = None) -> "ClientInfo":
        """Return the client as one of a run; `shown` says of which, `name` only if it is sure."""
        return replace(self, client=f"{self.client}, {shown}", run=name)

    def apart(self) -> "ClientInfo":
        """Return the same client, without what it is doing."""
        return replace(self, attempts={})


@dataclass(slots=True, eq=False)
class Attempt:
    """A recorded verdict, and the outcome of the attempt as far as it is known."""

    verdict: Verdict
    id: int
    started: float  # time.monotonic()
    first_byte: float | None = None
    status: int | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    upstream: str | None = None
    error: str | None = None
    ended: bool = False
    meter: UsageMeter | None = None  # reads the usage that the response reports
    reserved: Usage | None = None  # the most that the response may use, where a ceiling counts it
    held: int = 0  # bytes of the body that wait to be judged
    event: DecisionMade | None = None  # the decision as it was recorded
    grant: int | None = None  # the grant that allowed it
    took_use: bool = False  # of that grant
    open_attempts: "dict[int, Attempt] | None" = None  # of its connection, until it has ended

    @property
    def decision(self) -> Decision:
        """Whether the attempt is allowed, and why."""
        return self.verdict.decision

    def is_for(self, target: str) -> bool:
        """Tell whether it was for a target."""
        return self.event is not None and self.event.target == target

    @property
    def credential(self) -> CredentialDecision:
        """Which credential goes with the request."""
        return self.verdict.credential


@dataclass(frozen=True, slots=True, repr=False)
class ContentAhead:
    """A decision about a body that was made in another thread; it holds for these two alone."""

    policy: Policy
    body: bytes
    decision: Decision


@dataclass(frozen=True, slots=True, repr=False)
class GrantedLogin:
    """A login to a database that was allowed: by which credential, and with which password."""

    binding: Binding
    password: Secret


@dataclass(frozen=True, slots=True, repr=False)
class Terms:
    """The policy and the credential by which a connection was opened, to be compared with others.

    It may hold a secret, so it is not to be kept for long.
    """

    policy: Policy
    secret: object  # of the credential's binding; None: it has none now

    def are_those_of(self, other: "Terms") -> bool:
        """Tell whether neither has been replaced."""
        return self.policy is other.policy and self.secret == other.secret


class Gate:
    """The policy enforcement point: facts in, a recorded decision out."""

    def __init__(
        self,
        policy: Policy,
        record: Record,
        *,
        secret_provider: SecretProvider | None = None,
        audit_failure: AuditFailure = AuditFailure.DENY,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.policy = policy
        self.grants: GrantSource | None = None  # None: there are none
        self._record = record
        self._secret_provider = secret_provider or NoSecrets()
        self._salt = os.urandom(32)  # of the marks of credentials
        self._held = 0
        self._allow_unrecorded = audit_failure is AuditFailure.ALLOW
        # Whether clients would accept what the CA signs now.
        self.can_intercept: Callable[[], bool] = lambda: True
        self._clock_ns = clock_ns
        self._last_id = 0
        self._audit_works = True
        self.warnings = RareWarnings(logger.warning)
        self._name_limits = NameLimits()

    def warn_of_client(
        self,
        client_info: ClientInfo,
        about: Hashable,
        text_of: Callable[[str], str],
        find_program: Callable[[], str | None],
        agent: str | None = None,
    ) -> None:
        """Say something about a client at the terminal, unless it was said a short while ago.

        `text_of` gets what the client is called: `agent`, which is what it calls itself, only if
        nothing better is known.
        """
        owner = owner_of(client_info.client, client_info.run)
        name = name_of(client_info.client, client_info.run)

        def text(*, may_take_long: bool) -> str:
            if name != f"a client at {owner}":
                return text_of(name)
            found = find_program() if may_take_long else None
            return text_of(found or agent or name)

        self.warnings.warn_about((owner, about), text)

    def is_prompt(self, attempt: Attempt) -> bool:
        """Tell whether an attempt began just now."""
        return time.monotonic() - attempt.started < PROMPT_S

    # --- grants

    def policy_for(self, client_info: ClientInfo | None, target: Authority | None = None) -> Policy:
        """Return the policy that what a client has begun is judged by: with what it was granted.

        A request that took the last use of a grant goes on by it. What the owner allowed with
        `target` in an answer counts until that has ended.
        """
        policy = self._granted_policy(client_info)
        if policy.ask and client_info is not None and target is not None:
            name = str(target)
            for attempt in client_info.attempts.values():
                if attempt.decision.answered and attempt.is_for(name):
                    return policy.as_answered()
        return policy

    def policy_of(self, client_info: ClientInfo, attempt: Attempt) -> Policy:
        """Return the policy that the rest of an allowed request is judged by."""
        policy = self._granted_policy(client_info)
        return policy.as_answered() if attempt.decision.answered else policy

    def _granted_policy(self, client_info: ClientInfo | None) -> Policy:
        if self.grants is None or client_info is None:
            return self.policy
        held = [
            each.grant
            for each in client_info.attempts.values()
            if each.took_use and each.grant is not None
        ]
        return self.grants.policy_for(self.policy, client_info.run, held)

    def _policy_for_new(self, client_info: ClientInfo) -> Policy:
        """Return the policy that what a client begins now is judged by."""
        if self.grants is None:
            return self.policy
        return self.grants.policy_for(self.policy, client_info.run)

    def _took_use(self, decision: Decision) -> bool | None:
        """Take a use of the grant that allows something; None if it is none that is counted.

        False: it is used up, and something else may have to decide.
        """
        number = number_of(decision.rule) if decision.allowed else None
        if number is None or self.grants is None or not self.grants.is_counted(number):
            return None
        return self.grants.take(number)

    def lost_target(self, client_info: ClientInfo) -> str | None:
        """Return the target of a request that only a grant allowed which has ended since."""
        if self.grants is None:
            return None
        for attempt in client_info.attempts.values():
            number, event = attempt.grant, attempt.event
            is_over = number is not None and not self.grants.goes_on(number, held=attempt.took_use)
            if is_over and event is not None and event.phase is Phase.REQUEST:
                return event.target
        return None

    # --- tunnels

    def connect(
        self,
        client_info: ClientInfo,
        target: Authority,
        *,
        method: str = "CONNECT",
        answer: Answer | None = None,
    ) -> Attempt:
        """Decide whether a tunnel to `target` may be opened; `method` is how it was requested.

        Where the owner has to be asked first, nothing is recorded: it is decided again with the
        `answer`.
        """
        took_use = None
        while True:
            decision = _decided(
                lambda: self._policy_for_new(client_info).decide_tunnel(target, answer)
            )
            if decision.asks and not decision.opens_tunnel:
                return _unanswered(Verdict(decision))
            # The requests in a tunnel that is intercepted are counted, and not the tunnel.
            if not (decision.raw or decision.tls is Tls.PASSTHROUGH):
                break
            took_use = self._took_use(decision)
            if took_use is not False:
                break
        if decision.secure and decision.tls is Tls.INTERCEPT and not self.can_intercept():
            decision = CA_UNUSABLE
        scheme = PASSTHROUGH_SCHEME if decision.tls is Tls.PASSTHROUGH else ""
        if decision.raw:
            scheme = TCP_SCHEME
        verdict = Verdict(decision)
        if decision.raw:
            verdict = Verdict(decision, self.policy.decide_tunnel_credential(target))
        attempt = self._recorded(
            client_info, verdict, Phase.CONNECT, target, scheme=scheme, method=method
        )
        attempt.took_use = took_use is True
        return attempt

    def hello(
        self,
        client_info: ClientInfo,
        target: Authority,
        sni: str | None,
        *,
        encrypted: bool,
        tls: Tls | None,
    ) -> Attempt | None:
        """Decide whether a ClientHello agrees with its tunnel; None if it does.

        Agreement is part of the tunnel's own decision; only a disagreement is recorded.
        """
        decision = _decided(
            lambda: self.policy_for(client_info).decide_hello(
                target, sni, encrypted=encrypted, tls=tls
            )
        )
        if decision.allowed or decision.asks:
            return None
        facts = _facts_of(_open_attempt(client_info, target)) | {"scheme": "https"}
        return self._recorded(client_info, Verdict(decision), Phase.HELLO, target, **facts)

    def may_stay_open(
        self,
        target: Authority,
        *,
        passthrough: bool,
        raw: bool = False,
        database: Binding | None = None,
        client_info: ClientInfo | None = None,
    ) -> bool:
        """Tell whether an open tunnel may stay open; nothing is recorded.

        `raw` says that another protocol than TLS and HTTP may be spoken in it, `database` by which
        credential its client is logged in to one.
        """
        decision = _decided(lambda: self.policy_for(client_info, target).decide_tunnel(target))
        # A tunnel that is not intercepted must not outlive the rule that exempts it.
        exempted = not passthrough or decision.tls is Tls.PASSTHROUGH
        same_login = not raw or self.policy.database_at(target) == database
        opens = decision.allowed if passthrough else decision.opens_tunnel
        return opens and exempted and (not raw or decision.raw) and same_login

    # --- logins to databases

    def database_at(self, target: Authority) -> Binding | None:
        """Return the credential by which the proxy logs in to the database at `target`."""
        return self.policy.database_at(target)

    def log_in(
        self, client_info: ClientInfo, attempt: Attempt, target: Authority, asked: AskedLogin
    ) -> "GrantedLogin | Reason":
        """Decide about a login in the tunnel of `attempt`; a denial is recorded, and ends it."""
        secrets, binding = self._secret_provider.secrets, None
        decision = _decided(
            lambda: self.policy_for(client_info, target).decide_login(target, asked, secrets)
        )
        if decision.allowed:
            binding = self.policy.database_at(target)
            value = None if binding is None else secrets.get(binding.name)
            if binding is not None and isinstance(value, Secret):
                return GrantedLogin(binding, value)
            decision = FAULT
        facts = _facts_of(attempt)
        denial = self._recorded(client_info, Verdict(decision), Phase.HELLO, target, **facts)
        self.end(denial)
        self.end(attempt, denial.decision.reason.value)
        return denial.decision.reason

    def login_refused(self, attempt: Attempt) -> None:
        """Note that a database refused the password: it may be an old one."""
        if attempt.credential.credential is not None:
            self._secret_provider.answered(attempt.credential.credential, HTTPStatus.UNAUTHORIZED)

    def request_may_stay_open(
        self, request: Request, client_info: ClientInfo | None = None
    ) -> bool:
        """Tell whether the WebSocket that a request opened may stay open; nothing is recorded."""
        policy = self.policy_for(client_info, request.target)
        return _decided(lambda: policy.decide_request(request)).allowed

    # --- lookups

    def look_up(self, client_info: ClientInfo, name: str) -> LookupDecision:
        """Decide whether a client that resolves names itself may have an address for one.

        What is recorded is a denial, and the first lookup of a name that only a wildcard covers;
        that of another is part of the tunnel that follows it.
        """
        try:
            found = self._looked_up(client_info, name)
        except Exception:  # fail closed
            logger.exception("deciding failed")
            found = LookupDecision(FAULT)
        if found.leads_on:
            return found
        attempt = self._recorded(
            client_info,
            Verdict(found.decision),
            Phase.CONNECT,
            f"{name}:{_LOOKUP_PORT}",
            method=LOOKUP,
        )
        self.end(attempt)
        return LookupDecision(attempt.decision)

    def _looked_up(self, client_info: ClientInfo, name: str) -> LookupDecision:
        found = decide_lookup(self._policy_for_new(client_info), name)
        if not found.leads_on or found.wildcard is None:
            return found
        run, wildcard = client_info.run or "", found.wildcard
        limits = self._name_limits
        if not limits.admits(run, wildcard, name):
            return LookupDecision(TOO_MANY_NAMES)
        if limits.is_new(run, wildcard, name):
            text = f"{owner_of(client_info.client, client_info.run)} looked up {name}"
            if not self._noted(Notice(0, _NEW_NAME, text, run=client_info.run)):
                return LookupDecision(UNRECORDED)
            limits.add(run, wildcard, name)
        return found

    # --- dials

    def dial(self, client_info: ClientInfo, target: Authority) -> Decision:
        """Decide again right before a dial: the policy may have changed since the request."""
        decision = _decided(lambda: self.policy_for(client_info, target).decide_connect(target))
        return self._recorded_if_denied(client_info, decision, target)

    def address(
        self,
        client_info: ClientInfo,
        target: Authority,
        address: Address,
        owner: AddressOwner = AddressOwner.OTHER,
    ) -> Decision:
        """Decide whether `target` may resolve to `address`; only a denial is recorded.

        The address of an allowed dial is in the outcome of the request that needed it.
        """
        decision = _decided(
            lambda: self.policy_for(client_info, target).decide_address(target, address, owner)
        )
        if not decision.allowed and owner is AddressOwner.OTHER:
            attempt = _open_attempt(client_info, target)
            if attempt is not None:
                # An owner who means the name to lead there has to know where it leads.
                attempt.upstream = str(Authority.of(text_of(address), target.port))
        return self._recorded_if_denied(client_info, decision, target)

    def _recorded_if_denied(
        self, client_info: ClientInfo, decision: Decision, target: Authority
    ) -> Decision:
        if decision.allowed:
            return decision
        facts = _facts_of(_open_attempt(client_info, target))
        return self._recorded(client_info, Verdict(decision), Phase.DIAL, target, **facts).decision

    # --- connections that are kept ready: see `warm_upstreams`

    def terms(self, credential: str | None, client_info: ClientInfo | None = None) -> "Terms":
        """Return what a connection was opened by for requests with a credential, or without."""
        found = None if credential is None else self._secret_provider.secrets.get(credential)
        return Terms(self.policy_for(client_info), found)

    def mark_of(self, credential: str | None) -> Hashable:
        """Return what tells a credential, with its value of now, from all others.

        It tells nothing about the value, so it may be kept.
        """
        found = self.terms(credential).secret
        if isinstance(found, Secret):
            return credential, hmac.digest(self._salt, found.reveal(), "sha256")
        return credential, found  # the salted hashes of logins

    def would_dial(self, target: Authority, client_info: ClientInfo | None = None) -> bool:
        """Tell whether a dial would be allowed; nothing is recorded."""
        return _decided(lambda: self.policy_for(client_info).decide_connect(target)).allowed

    def would_dial_address(
        self,
        target: Authority,
        address: Address,
        owner: AddressOwner,
        client_info: ClientInfo | None = None,
    ) -> Decision:
        """Decide whether `target` may resolve to `address`; nothing is recorded."""
        return _decided(lambda: self.policy_for(client_info).decide_address(target, address, owner))

    def note_warm(self, client_info: ClientInfo, text: str) -> bool:
        """Record that a connection is opened for a client's next request; False: it must not be."""
        owner = owner_of(client_info.client, client_info.run)
        return self._noted(Notice(0, WARM_UPSTREAM, f"{text} of {owner}", run=client_info.run))

    def _noted(self, notice: Notice) -> bool:
        """Record a notice; False if what it is about must not happen."""
        try:
            self._record(notice)
        except AuditError as problem:
            self._report_outage(problem)
            return self._allow_unrecorded
        except Exception:  # fail closed
            logger.exception("recording failed")
            return False
        return True

    # --- requests

    def request(
        self,
        client_info: ClientInfo,
        request: Request,
        shown_path: str,
        answer: Answer | None = None,
    ) -> Attempt:
        """Decide whether one request may be forwarded, and with which credential.

        Where the owner has to be asked first, nothing is recorded: it is decided again with the
        `answer`.
        """
        verdict = self._evaluated(client_info, request, answer)
        took_use = None
        if self.grants is not None:
            while (took_use := self._took_use(verdict.decision)) is False:
                verdict = self._evaluated(client_info, request, answer)
        if verdict.decision.asks:
            return _unanswered(verdict)
        attempt = self._recorded_request(client_info, verdict, request, shown_path)
        attempt.took_use = took_use is True
        if attempt.decision.allowed and verdict.credential.learned is not None:
            # Only now: a request that cannot be recorded is denied, and pins nothing.
            denial = self._pin(verdict.credential)
            if denial is not None:
                attempt.error, attempt.status = denial.reason.value, 403
                self.end(attempt)
                verdict = verdict._replace(decision=denial)
                attempt = self._recorded(
                    client_info, verdict, Phase.REQUEST, request.target, **_facts_of(attempt)
                )
        if attempt.decision.allowed and attempt.verdict.is_metered(request):
            credential = _readable_by_meter(attempt.credential, request)
            attempt.verdict = attempt.verdict._replace(credential=credential)
        return attempt

    def _evaluated(
        self, client_info: ClientInfo, request: Request, answer: Answer | None
    ) -> Verdict:
        try:
            policy = self._policy_for_new(client_info)
            return policy.evaluate(request, self._secret_provider.secrets, answer)
        except Exception:  # fail closed
            logger.exception("deciding failed")
            return Verdict(FAULT)

    def _pin(self, credential: CredentialDecision) -> Decision | None:
        """Pin the first login that a request contains; return the denial if that fails."""
        if credential.learned is None or credential.credential is None:
            return None
        try:
            self._secret_provider.learn(credential.credential, credential.learned)
        except OSError as error:
            if error.errno is None:  # another login is already pinned
                return ANOTHER_LOGIN_PINNED
            logger.error("a login cannot be pinned (%s); it is denied", error.strerror)  # noqa: TRY400
            return LOGIN_NOT_PINNED
        except Exception:  # fail closed
            logger.exception("pinning failed")
            return FAULT
        return None

    def content_ahead(
        self, request: Request, body: bytes, policy: Policy | None = None
    ) -> "ContentAhead":
        """Decide what `content` will need, in any thread: pure, and records nothing."""
        policy = policy or self.policy
        return ContentAhead(policy, body, policy.decide_content(request, body))

    def content(
        self,
        client_info: ClientInfo,
        attempt: Attempt,
        request: Request,
        body: bytes,
        ahead: "ContentAhead | None" = None,
    ) -> Decision:
        """Decide whether the body of a request whose head was allowed is allowed as well.

        An allowed request was recorded with its head; here only a denial is recorded. `ahead` is
        used if it is of this body and of the policy that is in force now.
        """
        decision = _decided(
            lambda: self._decide_content(
                self.policy_of(client_info, attempt), attempt, request, body, ahead
            )
        )
        if decision.allowed:
            return decision
        return self._recorded_end(client_info, attempt, request, Phase.CONTENT, decision)

    @staticmethod
    def _decide_content(
        policy: Policy,
        attempt: Attempt,
        request: Request,
        body: bytes,
        ahead: "ContentAhead | None",
    ) -> Decision:
        # The policy may have been reloaded while the body was held, and the credential rebound.
        departure = policy.decide_departure(request, attempt.verdict)
        if not departure.allowed:
            return departure
        if ahead is not None and ahead.policy is policy and ahead.body is body:
            return ahead.decision
        return policy.decide_content(request, body)

    def leave(self, client_info: ClientInfo, attempt: Attempt, request: Request) -> Decision:
        """Decide again whether a request may leave, once it has an upstream connection."""
        decision = _decided(lambda: self.policy.decide_departure(request, attempt.verdict))
        if decision.allowed:
            return decision
        return self._recorded_end(client_info, attempt, request, Phase.DIAL, decision)

    def refuse_content(
        self,
        client_info: ClientInfo,
        attempt: Attempt,
        request: Request,
        reason: Reason,
        status: int,
    ) -> None:
        """Record that a request whose head was allowed ends because of its body.

        `status` is that of the response; no rule needs to be asked.
        """
        decision = _decided(lambda: denied(reason))
        self._recorded_end(client_info, attempt, request, Phase.CONTENT, decision, status)

    def _recorded_end(  # noqa: PLR0913
        self,
        client_info: ClientInfo,
        attempt: Attempt,
        request: Request,
        phase: Phase,
        decision: Decision,
        status: int = 403,
    ) -> Decision:
        """Record that a request whose head was allowed is denied after all."""
        denial = self._recorded(
            client_info, Verdict(decision), phase, request.target, **_facts_of(attempt)
        )
        attempt.error, denial.status = denial.decision.reason.value, status
        self.end(denial)
        return denial.decision

    def takes_trailers(self, request: Request) -> bool:
        """Tell whether trailers may follow the body: not where header fields are judged."""
        return self.policy.allows_trailers(request.target)

    def refuse(  # noqa: PLR0913 - each fact is a separate column of the audit log
        self,
        client_info: ClientInfo,
        phase: Phase,
        reason: Reason,
        target: str | Authority,
        *,
        method: str = "",
        scheme: str = "",
        path: str = "",
    ) -> Attempt:
        """Record a denial that needs no rule: an unreadable target, an unknown client, no TLS."""
        decision = _decided(lambda: denied(reason))
        return self._recorded(
            client_info, Verdict(decision), phase, target, scheme=scheme, method=method, path=path
        )

    def left_unanswered(self, client_info: ClientInfo, facts: Facts, path: str, why: str) -> None:
        """Record that an attempt ended, for `why`, before the owner had answered: a denial."""
        decision = _decided(lambda: denied(Reason.NOT_ANSWERED, facts.asking))
        subject = facts.subject
        is_tunnel = subject.access is Access.TUNNEL
        attempt = self._recorded(
            client_info,
            Verdict(decision),
            Phase.CONNECT if is_tunnel else Phase.REQUEST,
            subject.target,
            scheme="" if is_tunnel else subject.scheme.value,
            method=facts.method,
            path=path,
        )
        self.end(attempt, why)

    def refuse_first_bytes(
        self, client_info: ClientInfo, attempt: Attempt, reason: Reason, target: Authority
    ) -> None:
        """Record that what a client sends first in the tunnel of `attempt` is refused."""
        decision = _decided(lambda: denied(reason))
        facts = _facts_of(attempt)
        denial = self._recorded(client_info, Verdict(decision), Phase.HELLO, target, **facts)
        self.end(denial)
        self.end(attempt, denial.decision.reason.value)

    # --- bodies that are held, and responses

    @property
    def is_crowded(self) -> bool:
        """Whether more than half of the memory for bodies that wait to be judged is used."""
        return self._held > _HELD_LIMIT // 2

    def hold(self, attempt: Attempt, size: int) -> bool:
        """Reserve memory for `size` more bytes of a body that waits to be judged; False if full."""
        if self._held + size > _HELD_LIMIT:
            return False
        self._held += size
        attempt.held += size
        return True

    def inspector_of(self, attempt: Attempt, request: Request) -> ResponseInspector | None:
        """Return the inspector of a request's response; None if it needs none."""
        inspectors: list[ResponseInspector] = []
        if attempt.credential.guarded:
            inspectors.append(LeakGuard(attempt.credential.guarded))
        if attempt.verdict.is_metered(request):
            attempt.meter = UsageMeter()
            inspectors.append(attempt.meter)
        if not inspectors:
            return None
        return inspectors[0] if len(inspectors) == 1 else InspectorChain(inspectors)

    def answered(self, attempt: Attempt, status: int | None) -> None:
        """Note the status and the time of the response's head."""
        attempt.status = status
        attempt.first_byte = time.monotonic()
        if attempt.credential.credential is not None and status is not None:
            self._secret_provider.answered(attempt.credential.credential, status)

    # --- the record

    def end(self, attempt: Attempt, error: str | None = None) -> None:
        """Record how an attempt ended; only the first call counts."""
        if attempt.ended:
            return
        attempt.ended = True
        if attempt.open_attempts is not None:
            attempt.open_attempts.pop(attempt.id, None)
        self._held -= attempt.held
        started, first = attempt.started, attempt.first_byte
        outcome = OutcomeSeen(
            decision=attempt.id,
            status=attempt.status,
            bytes_up=attempt.bytes_up,
            bytes_down=attempt.bytes_down,
            duration_ms=round((time.monotonic() - started) * 1000, 3),
            first_byte_ms=None if first is None else round((first - started) * 1000, 3),
            upstream=attempt.upstream,
            error=error if error is not None else attempt.error,
            usage=_usage_of(attempt),
            allowed=_begins(attempt.decision),
            decided_at=0 if attempt.event is None else attempt.event.at,
        )
        try:
            self._record(outcome)
        except AuditError as problem:
            self._report_outage(problem)

    def _recorded_request(
        self, client_info: ClientInfo, verdict: Verdict, request: Request, shown_path: str
    ) -> Attempt:
        return self._recorded(
            client_info,
            verdict,
            Phase.REQUEST,
            request.target,
            scheme=request.scheme.value,
            method=request.method,
            path=shown_path,
        )

    def _recorded(  # noqa: PLR0913
        self,
        client_info: ClientInfo,
        verdict: Verdict,
        phase: Phase,
        target: str | Authority,
        *,
        scheme: str = "",
        method: str = "",
        path: str = "",
        ends: int | None = None,
    ) -> Attempt:
        """Return the recorded verdict; a denial if recording fails."""
        now = self._clock_ns()
        decision = verdict.decision
        rule = decision.rule
        number = self._last_id = max(now, self._last_id + 1)
        event = DecisionMade(
            id=number,
            connection=client_info.connection,
            client=client_info.client,
            listener=client_info.listener,
            phase=phase,
            scheme=scheme,
            target=str(target),
            method=method,
            path=path,
            allowed=_begins(decision),
            reason=decision.reason.value,
            rule=None if rule is None else rule.name,
            rule_source=None if rule is None else str(rule.source),
            credential=verdict.credential.credential,
            run=client_info.run,
            attempt=ends,
            at=0 if number == now else now,
        )
        try:
            number = self._record(event) or number
            self._audit_works = True
        except AuditError as problem:
            self._report_outage(problem)
            if not self._allow_unrecorded:
                verdict = verdict._replace(decision=UNRECORDED)
        except Exception:  # fail closed
            logger.exception("recording failed")
            verdict = verdict._replace(decision=FAULT)
        attempt = Attempt(verdict, number, time.monotonic(), event=event)
        if verdict.decision.allowed:
            if self.grants is not None:
                attempt.grant = number_of(verdict.decision.rule)
            attempt.open_attempts = client_info.attempts
            client_info.attempts[number] = attempt
        return attempt

    def _report_outage(self, problem: AuditError) -> None:
        # Once per outage: thousands of equal lines would hide everything else.
        if self._audit_works:
            self._audit_works = False
            then = "allowed, as configured" if self._allow_unrecorded else "denied"
            logger.error("%s; until this is fixed everything is %s", problem.what, then)


def _begins(decision: Decision) -> bool:
    """Tell whether what was asked for begins: a tunnel may do so towards its client alone."""
    return decision.opens_tunnel


def _unanswered(verdict: Verdict) -> Attempt:
    """Return an attempt that is not decided: it has no record, and no end."""
    return Attempt(verdict, 0, time.monotonic(), ended=True)


class _Facts(TypedDict, total=False):
    """What a later denial repeats of the attempt that it ends."""

    scheme: str
    method: str
    path: str
    ends: int


def _facts_of(attempt: Attempt | None) -> _Facts:
    if attempt is None or attempt.event is None:
        return {}
    event = attempt.event
    return {
        "scheme": event.scheme,
        "method": event.method,
        "path": event.path,
        "ends": attempt.id,
    }


def _open_attempt(client_info: ClientInfo, target: Authority) -> Attempt | None:
    """Return the attempt for which `target` is dialled: the newest one that has not ended."""
    name = str(target)
    for attempt in reversed(client_info.attempts.values()):
        if attempt.event is not None and attempt.event.target == name:
            return attempt
    return None


def _usage_of(attempt: Attempt) -> Usage | None:
    meter, reserved = attempt.meter, attempt.reserved
    if meter is None or reserved is None:
        return None if meter is None else meter.usage
    # A request that reserves has a body, so that without one sent nothing was asked for.
    return meter.settled(reserved) if attempt.bytes_up else None


def _readable_by_meter(credential: CredentialDecision, request: Request) -> CredentialDecision:
    """Restrict Accept-Encoding to codings that the usage meter can read."""
    encodings = None if credential.guarded else readable_encodings(request.fields)
    if encodings is None:
        return credential
    field = (b"Accept-Encoding", encodings)
    drop = credential.drop | {field[0].lower()}
    return replace(credential, drop=drop, extra=(*credential.extra, field))


def _decided(decide: Callable[[], Decision]) -> Decision:
    try:
        return decide()
    except Exception:  # fail closed
        logger.exception("deciding failed")
        return FAULT
