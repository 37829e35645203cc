"""Admission of a request: judge it, add its credential, inspect its response, hold its body.

Law kept: every exit is gated. HTTP/1.1 and HTTP/2 both take exactly these steps before any part of
a request leaves. Only an admission contains a request's credential.
"""

from dataclasses import dataclass, replace

from claude_proxy.policy.answer import Answer
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.git_push import PUSH_QUERY, push_path
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.questions import Facts, opens_websocket, subject_of_request
from claude_proxy.policy.request import RawField, Request, Scheme
from claude_proxy.policy.rules import OVERRIDE_HEADERS
from claude_proxy.proxy.dialer import DialError
from claude_proxy.proxy.gate import Attempt, ContentAhead
from claude_proxy.proxy.inspection.base import ResponseInspector
from claude_proxy.proxy.layers.session import Session
from claude_proxy.proxy.responses import Refusal, denial_of_request, no_room, too_large
from claude_proxy.proxy.upstream_errors import UpstreamError, refusal_for

DEFAULT_PORTS = {Scheme.HTTP: 80, Scheme.HTTPS: 443}


# To judge a body takes up to 4 us for each of these signs, and little for text between them.
_SIGNS = (b'"', b",", b":", b"[", b"{")
_FEW_SIGNS = 500
_LONGEST_AGENT = 120  # bytes that are shown
_FEW_BYTES = 256 * 1024


def takes_long(body: bytes) -> bool:
    """Tell whether judging a body could occupy the event loop for more than two milliseconds."""
    if len(body) > _FEW_BYTES:
        return True
    return len(body) > _FEW_SIGNS and sum(map(body.count, _SIGNS)) > _FEW_SIGNS


@dataclass(slots=True, eq=False, repr=False)
class Admission:
    """A request whose head is allowed; its repr is hidden because `extra` has the credential."""

    session: Session
    attempt: Attempt
    request: Request
    drop: frozenset[bytes]  # fields that do not go upstream, in lower case
    extra: tuple[RawField, ...]  # fields that are added, including the credential's
    inspector: ResponseInspector | None  # sees the response, and may abort it
    body_limit: int | None  # most bytes of a body that is judged as a whole; None: it streams
    ahead: ContentAhead | None = None  # what was computed of the body's judgement
    policy: Policy | None = None  # by which that is computed; None: the one without grants

    @property
    def label(self) -> str:
        """The request in one line, safe to print; most requests never need it."""
        return label_of(self.request)

    def check_length(self, length: int) -> Refusal | None:
        """Return the 413 if a body of `length` bytes is too large to be judged, else None."""
        if self.body_limit is not None and length > self.body_limit:
            return too_large(self.label)
        return None

    def hold(self, size: int, *, held: int) -> Refusal | None:
        """Reserve memory for `size` bytes beyond the `held` ones; return the refusal if denied."""
        if held + size > (self.body_limit or 0):
            return too_large(self.label)
        return None if self.reserve(size) else no_room(self.label)

    def reserve(self, size: int) -> bool:
        """Reserve memory for `size` bytes until the attempt ends; False if there is none."""
        session, attempt = self.session, self.attempt
        if not attempt.held:
            session.holding.append(attempt)
        while not session.gate.hold(attempt, size):
            if not session.make_room(size):
                return False
        return True

    def judge_ahead(self, body: bytes) -> None:
        """Compute in another thread what `judge_body` will ask for this body."""
        self.ahead = self.session.gate.content_ahead(self.request, body, self.policy)

    def judge_body(self, body: bytes) -> Refusal | None:
        """Judge the whole body; return the denial, or None if it may leave."""
        session = self.session
        decision = session.gate.content(
            session.client_info, self.attempt, self.request, body, self.ahead
        )
        return None if decision.allowed else self._denial(decision.reason.value)

    def recheck(self) -> Refusal | None:
        """Judge again after the dial, during which the policy may have changed; None: allowed."""
        session = self.session
        decision = session.gate.leave(session.client_info, self.attempt, self.request)
        return None if decision.allowed else self._denial(decision.reason.value)

    @property
    def takes_trailers(self) -> bool:
        """Whether trailers may follow the body: not where one could be a credential."""
        return self.session.gate.takes_trailers(self.request)

    def fail(self, error: DialError | UpstreamError | str) -> Refusal:
        """Note the upstream's error for the audit log; return the refusal that it becomes."""
        refusal = refusal_for(error, self.request, self.label).naming(self.session.list_options)
        self.attempt.error = refusal.reason
        hint = self.session.hints.about(refusal.reason, refusal.explanation)
        if hint is None:
            return refusal
        self.session.gate.warnings.warn(hint.for_owner)
        return replace(refusal, explanation=f"{refusal.explanation} {hint.for_client}")

    def _denial(self, reason: str) -> Refusal:
        return _denial_of(self.session, reason, self.request)


@dataclass(slots=True, eq=False, repr=False)
class Denied:
    """A request whose head is denied; the denial is recorded, its outcome not yet."""

    attempt: Attempt
    refusal: Refusal


def admit(
    session: Session, request: Request, origin_target: str, answer: Answer | None = None
) -> Admission | Denied | Facts:
    """Judge a request's head and record the decision; `origin_target` is its path and query.

    Facts: the owner is to be asked, and then it is judged again with the answer.
    """
    gate = session.gate
    path = origin_target if session.record_query else _recorded_path(request)
    attempt = gate.request(session.client_info, request, path, answer)
    decision, credential = attempt.decision, attempt.credential
    if decision.asks:
        return _question_about(session, request, origin_target, decision)
    if not decision.allowed:
        reason = decision.reason.value
        return Denied(attempt, _denial_of(session, reason, request))
    drop = credential.drop
    body_limit = attempt.verdict.body_limit(request)
    return Admission(
        session,
        attempt,
        request,
        drop | OVERRIDE_HEADERS if decision.restricted else drop,
        credential.extra,
        gate.inspector_of(attempt, request),
        body_limit,
        policy=None if body_limit is None else gate.policy_of(session.client_info, attempt),
    )


def _question_about(
    session: Session, request: Request, origin_target: str, decision: Decision
) -> Facts:
    subject = subject_of_request(session.client_info.run, request)
    size = len(origin_target) + sum(len(name) + len(value) for name, value in request.fields)
    return Facts(
        subject,
        request.method,
        origin_target,
        "",
        decision.rule,
        size,
        _agent(request),
        websocket=opens_websocket(request),
    )


def _agent(request: Request) -> str:
    """Return what a client calls itself, which may be anything."""
    found = (value for name, value in request.fields if name.lower() == b"user-agent")
    return next(found, b"")[:_LONGEST_AGENT].decode("latin-1")


def _denial_of(session: Session, reason: str, request: Request) -> Refusal:
    address = request.target.address
    is_own = address is not None and session.owns(address)
    refusal = denial_of_request(reason, label_of(request), request, is_own=is_own)
    return refusal.naming(session.list_options)


def _recorded_path(request: Request) -> str:
    """Return the path without its query, which may contain a secret, unless it asks for a push."""
    push = request.query and push_path(request.path, request.query) is not None
    return f"{request.path}?{PUSH_QUERY}" if push else request.path


def label_of(request: Request) -> str:
    """Return the request in one line, without the query, which may contain a secret."""
    path = "" if request.path == "*" else request.path
    return f"{request.method} {request.scheme.value}://{host_of(request)}{path}"


def host_of(request: Request) -> str:
    """Return the request's target as in a Host field: without the scheme's default port."""
    text = str(request.target)
    if request.target.port == DEFAULT_PORTS[request.scheme]:
        return text.rpartition(":")[0]
    return text
