"""The proxy's role on HTTP/1.1: a forward proxy, or an origin inside a tunnel.

Agreement: inside a tunnel no request may leave its target; without one, the client sends
absolute-form requests as to a forward proxy (RFC 9112 3.2.2).
"""

from mitmproxy.proxy.context import Context

from claude_proxy.events import Phase
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.questions import Facts
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import RawField, Request, Scheme
from claude_proxy.proxy.dialer import Dialer
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.layers.admission import (
    DEFAULT_PORTS,
    Admission,
    Denied,
    admit,
    host_of,
    label_of,
)
from claude_proxy.proxy.layers.client_auth import head_admits
from claude_proxy.proxy.layers.http1 import Http1Lane
from claude_proxy.proxy.layers.http1_exchange import Exchange
from claude_proxy.proxy.layers.http1_response_writer import StreamingWriter
from claude_proxy.proxy.layers.http1_role import LocalAnswer, OwnResponse, has_body
from claude_proxy.proxy.layers.session import Session
from claude_proxy.proxy.responses import Refusal, bad_request, denial, unauthenticated
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.head import RequestHead, TargetForm

_NEEDS_CONNECT = (
    "only http URLs are taken without a tunnel; the client must ask for one by CONNECT (axios does "
    "not before 1.0, unless it is given an agent such as https-proxy-agent)"
)


class ProxyRole:
    """Forwards each allowed request to the target that it names, or to that of its tunnel.

    The dialer says how a forwarded request must look, and dials nothing here. Without one,
    requests look as an origin wants them, and another proxy is asked for a tunnel.
    """

    def __init__(
        self,
        session: Session,
        *,
        scheme: Scheme,
        target: Authority | None,
        dialer: Dialer | None = None,
    ) -> None:
        self.scheme = scheme
        self.target = target
        self.tunnels = scheme is Scheme.HTTPS or dialer is None
        self._session = session
        self._dialer = dialer

    def admit(
        self, head: RequestHead, answer: Answer | None = None
    ) -> Exchange | LocalAnswer | Facts:
        """Judge a request's head, and record the decision."""
        if not self._authenticates(head):
            return self._deny_unauthenticated(head)
        try:
            request = self._request_of(head)
        except ValueError as error:
            attempt = self._record(head, Reason.BAD_REQUEST)
            return LocalAnswer(bad_request(str(error)), attempt, close=True)
        if request is None:
            return self._deny(head, Reason.PROXY_LOOP, f"{head.method} {head.path}")
        if head.upgrade and "websocket" not in head.upgrade:
            return self._deny(head, Reason.UPGRADE_REFUSED, label_of(request), request.target)
        admitted = admit(self._session, request, head.origin_target, answer)
        if isinstance(admitted, Denied):
            return LocalAnswer(admitted.refusal, admitted.attempt, has_body(head))
        return self._forward(head, admitted) if isinstance(admitted, Admission) else admitted

    def judge_ahead(self, exchange: Exchange, body: bytes) -> None:
        """Judge a body in another thread, for `judge_body`."""
        exchange.admission.judge_ahead(body)

    def judge_body(self, exchange: Exchange, body: bytes) -> bytes | OwnResponse:
        """Judge a body, which goes upstream as it came."""
        refusal = exchange.admission.judge_body(body)
        return body if refusal is None else refusal

    def response_for(self, refusal: Refusal) -> OwnResponse:
        """Return the refusal: it is a response as it is."""
        return refusal

    def fault(self) -> OwnResponse | None:
        """Return nothing: the connection is ended by its driver."""
        return None

    def _deny_unauthenticated(self, head: RequestHead) -> LocalAnswer:
        # The client may try again on this connection, unless a body is on its way.
        attempt = self._record(head, Reason.CLIENT_NOT_AUTHENTICATED, phase=Phase.CLIENT)
        refusal = unauthenticated(f"{head.method} {head.target}")
        return LocalAnswer(refusal, attempt, has_body(head))

    def _authenticates(self, head: RequestHead) -> bool:
        # A tunnel's client has authenticated when it asked for the tunnel.
        wanted = self._session.credentials
        return self.target is not None or wanted is None or head_admits(wanted, head)

    def _request_of(self, head: RequestHead) -> Request | None:
        """Return the facts to judge; None if the proxy itself is asked; may raise ValueError."""
        target, scheme = self.target, self.scheme
        if target is None:
            if head.form is not TargetForm.ABSOLUTE:
                return None
            if head.scheme != Scheme.HTTP.value:
                raise ValueError(_NEEDS_CONNECT)
            target = Authority.parse(head.authority, default_port=80)
        elif head.form in (TargetForm.ABSOLUTE, TargetForm.AUTHORITY):
            # RFC 9112 3.2.2 lets an origin take absolute-form; inside a tunnel it could only
            # say the same again, or try to say something else.
            raise ValueError("inside a tunnel the request target must be a path")
        if head.host is None:
            host = target
        else:
            host = Authority.parse(head.host, default_port=DEFAULT_PORTS[scheme])
        path, _, query = head.origin_target.partition("?")
        return Request(scheme, target, host, head.method, path, query, head.fields)

    def _forward(self, head: RequestHead, admission: Admission) -> Exchange:
        request, target = admission.request, head.origin_target
        extra: tuple[RawField, ...] = ()
        dialer = self._dialer
        via_proxy = dialer is not None and dialer.via_proxy(request.target)
        if dialer is not None and via_proxy:
            # RFC 9112 3.2.4: the "*" of OPTIONS is in absolute-form no path at all.
            path = "" if target == "*" else target
            target = f"http://{host_of(request)}{path}"
            if (authorization := dialer.proxy_authorization()) is not None:
                extra = ((b"Proxy-Authorization", authorization),)
        host = None if head.host else host_of(request).encode()
        return Exchange(
            head, admission, StreamingWriter(head.minor), target, host, extra, via_proxy
        )

    # --- what needs no rule to be denied

    def _deny(
        self, head: RequestHead, reason: Reason, label: str, target: Authority | None = None
    ) -> LocalAnswer:
        attempt = self._record(head, reason, target)
        # Another reason than ours where the denial could not be recorded.
        refusal = denial(attempt.decision.reason.value, label, None)
        return LocalAnswer(refusal, attempt, has_body(head))

    def _record(
        self,
        head: RequestHead,
        reason: Reason,
        target: Authority | None = None,
        *,
        phase: Phase = Phase.REQUEST,
    ) -> Attempt:
        named = target or self.target or (head.host or b"").decode("latin-1")
        return self._session.gate.refuse(
            self._session.client_info,
            phase,
            reason,
            _sent_target(head) or named,
            method=head.method,
            scheme=head.scheme or self.scheme.value,
            path=head.path,
        )


def _sent_target(head: RequestHead) -> str | Authority:
    """Return the authority in the request target, with its scheme's port; "" if there is none."""
    try:
        port = DEFAULT_PORTS[Scheme(head.scheme)]
        return Authority.parse(head.authority, default_port=port)
    except ValueError:
        return head.authority


def proxy_lane(
    context: Context,
    session: Session,
    *,
    scheme: Scheme,
    target: Authority | None,
    dialer: Dialer | None = None,
) -> Http1Lane:
    """Return the lane of a forward proxy, or of the tunnel to `target`."""
    role = ProxyRole(session, scheme=scheme, target=target, dialer=dialer)
    return Http1Lane(context, session, role)
