"""The gateway's role on HTTP/1.1: one API's calls come in, and one configured upstream serves them.

Every exit is gated, secrets stay outside: which callers are let in, what is served and how it is
answered are the gateway's own; what may leave, with which credential and to where, is judged and
recorded as everywhere. The upstream is configured, so a caller cannot name another one.
"""

from mitmproxy.connection import Client

from claude_proxy.events import Phase
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.messages.model_override import with_model
from claude_proxy.policy.questions import Facts
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.gateway.callers import is_web_page, shows_token
from claude_proxy.proxy.gateway.modes import InvalidBody, mode_of
from claude_proxy.proxy.gateway.responses import GatewayResponse, json_response, reason_field
from claude_proxy.proxy.gateway.routes import MESSAGES_PATH, NotServed, Route, route_of
from claude_proxy.proxy.gateway.state import GatewayState
from claude_proxy.proxy.layers.admission import Denied, admit, host_of
from claude_proxy.proxy.layers.http1_exchange import Exchange
from claude_proxy.proxy.layers.http1_role import LocalAnswer, OwnResponse, has_body
from claude_proxy.proxy.layers.session import Session
from claude_proxy.proxy.responses import Refusal, bad_request, denial
from claude_proxy.wire.http1.head import RequestHead, TargetForm

_VERSION_FIELD = b"anthropic-version"
_VERSION = b"2023-06-01"
_NO_PROXY = "this is a gateway, not a proxy: request a path, not a URL"
_UNKNOWN_CALLER = "This gateway requires its token."
_WEB_PAGE = "A page in a browser may not use this gateway without its token."
_CEILING = "The limit that the owner of this gateway set has been reached."
_UNAUTHENTICATED = 401
_FORBIDDEN = 403
_TOO_MANY = 429


class GatewayRole:
    """Serves a gateway's callers."""

    tunnels = True

    def __init__(
        self, client: Client, session: Session, state: GatewayState, token: str | None
    ) -> None:
        gateway = state.gateway
        self.scheme = gateway.upstream.scheme
        self.target = gateway.upstream.authority
        self._client = client
        self._session = session
        self._state = state
        self._gateway = gateway
        self._mode = mode_of(gateway)
        self._token = None if token is None else token.encode("utf-8")

    def admit(
        self,
        head: RequestHead,
        answer: Answer | None = None,  # noqa: ARG002 - a gateway asks nobody
    ) -> Exchange | LocalAnswer:
        """Judge a request's head, and record the decision."""
        if head.form in (TargetForm.ABSOLUTE, TargetForm.AUTHORITY):
            turned_down = self._turn_down(head, Reason.INVALID_TARGET, bad_request(_NO_PROXY))
            turned_down.close = True
            return turned_down
        route = route_of(self._gateway.mode, head.method, head.path)
        if isinstance(route, Route) and not route.forwarded:
            return LocalAnswer(self._own_response(route), None, has_body(head))
        refused = self._refuse_caller(head) or self._refuse_route(head, route)
        return refused or self._forward(head)

    def judge_ahead(self, exchange: Exchange, body: bytes) -> None:
        """Compute in another thread what leaves, and judge it, for `judge_body`."""
        exchange.outgoing = body, self._outgoing(body)
        if isinstance(exchange.outgoing[1], bytes):
            exchange.admission.judge_ahead(exchange.outgoing[1])

    def _outgoing(self, body: bytes) -> bytes | ValueError:
        """Return what leaves for a body, or why nothing does."""
        try:
            body = self._mode.read_body(body)
            return with_model(body, self._gateway.models) if self._gateway.models else body
        except ValueError as error:
            return error

    def judge_body(self, exchange: Exchange, body: bytes) -> bytes | OwnResponse:
        """Judge what leaves: so the model is replaced first."""
        ahead = exchange.outgoing
        made = ahead[1] if ahead is not None and ahead[0] is body else self._outgoing(body)
        if isinstance(made, InvalidBody):
            response = made.response
            self._deny_body(exchange, Reason.BAD_REQUEST, response.status)
            return response
        if isinstance(made, ValueError):
            self._deny_body(exchange, Reason.BODY_UNREADABLE, _FORBIDDEN)
            label = exchange.admission.label
            return self.response_for(denial(Reason.BODY_UNREADABLE.value, label, None))
        body = made
        refusal = exchange.admission.judge_body(body)
        if refusal is not None:
            return self.response_for(refusal)
        if not exchange.admission.request.path.endswith(MESSAGES_PATH):
            return body
        wait_s = self._state.reserve(exchange.attempt, body)
        if wait_s is None:
            return body
        self._deny_body(exchange, Reason.CEILING_REACHED, _TOO_MANY)
        return self._too_many(wait_s)

    def response_for(self, refusal: Refusal) -> OwnResponse:
        """Return what a caller gets for a refusal, in the words of the mode."""
        return self._mode.response_for(refusal)

    def fault(self) -> OwnResponse | None:
        """Return the response to a request that an internal error ended."""
        text = "Internal gateway error."
        return self._mode.response_for(Refusal(500, Reason.INTERNAL_ERROR.value, text))

    # --- requests that are forwarded

    def _forward(self, head: RequestHead) -> Exchange | LocalAnswer:
        self._mode.rewrite(head)
        head.origin_target = self._gateway.upstream.path + head.origin_target
        head.host = None  # the upstream's is written
        if head.get(_VERSION_FIELD) is None:
            head.fields.append((_VERSION_FIELD, _VERSION))
        request = self._request_of(head)
        admission = admit(self._session, request, head.origin_target, Answer.NONE)
        if isinstance(admission, Facts):
            raise TypeError("a gateway asks nobody")
        if isinstance(admission, Denied):
            response = self.response_for(admission.refusal)
            return LocalAnswer(response, admission.attempt, has_body(head))
        admission.body_limit = self._body_limit(head, admission.body_limit)
        writer, host = self._mode.writer(head, admission), host_of(request).encode()
        return Exchange(head, admission, writer, head.origin_target, host)

    def _request_of(self, head: RequestHead) -> Request:
        base = self._gateway.upstream
        path, _, query = head.origin_target.partition("?")
        return Request(
            base.scheme, base.authority, base.authority, head.method, path, query, head.fields
        )

    def _body_limit(self, head: RequestHead, restricted: int | None) -> int | None:
        # Every body is held: one that is too long must be refused before anything is sent.
        if head.method != "POST" and not has_body(head):
            return None
        most = self._gateway.request_bytes
        return most if restricted is None else min(most, restricted)

    def _deny_body(self, exchange: Exchange, reason: Reason, status: int) -> None:
        """Record that a request ends because of its body."""
        session, request = self._session, exchange.admission.request
        session.gate.refuse_content(session.client_info, exchange.attempt, request, reason, status)

    # --- requests that are answered here

    def _own_response(self, route: Route) -> GatewayResponse:
        if route is Route.HELLO:
            return GatewayResponse(200, b"", ())
        return json_response(200, {"status": "ok", "mode": self._gateway.mode.value})

    def _refuse_caller(self, head: RequestHead) -> LocalAnswer | None:
        """Return the answer to a caller that may not use the gateway; None: it may."""
        if self._token is not None:
            if shows_token(head, self._token):
                return None
            status, reason, text = (
                _UNAUTHENTICATED,
                Reason.CLIENT_NOT_AUTHENTICATED,
                _UNKNOWN_CALLER,
            )
        elif is_web_page(head, self._client.peername):
            status, reason, text = _FORBIDDEN, Reason.CLIENT_NOT_ALLOWED, _WEB_PAGE
        else:
            return None
        return self._turn_down(head, reason, Refusal(status, reason.value, text), Phase.CLIENT)

    def _refuse_route(self, head: RequestHead, route: Route | NotServed) -> LocalAnswer | None:
        """Return the answer to a request that is not forwarded for any caller."""
        if isinstance(route, NotServed):
            attempt = self._record(head, Reason.ENDPOINT_NOT_ALLOWED)
            return LocalAnswer(self._mode.not_served(route), attempt, has_body(head))
        if head.upgrade:
            refusal = denial(Reason.UPGRADE_REFUSED.value, "", None)
            return self._turn_down(head, Reason.UPGRADE_REFUSED, refusal)
        wait_s = self._state.begin()
        return None if wait_s is None else self._put_off(head, wait_s)

    def _put_off(self, head: RequestHead, wait_s: int) -> LocalAnswer:
        attempt = self._record(head, Reason.CEILING_REACHED)
        return LocalAnswer(self._too_many(wait_s), attempt, has_body(head))

    def _too_many(self, wait_s: int) -> OwnResponse:
        retry_after = (b"Retry-After", b"%d" % wait_s)
        reason = reason_field(Reason.CEILING_REACHED.value)
        return self._mode.error(_TOO_MANY, _CEILING, retry_after, reason)

    def _turn_down(
        self, head: RequestHead, reason: Reason, refusal: Refusal, phase: Phase = Phase.REQUEST
    ) -> LocalAnswer:
        """Deny a request that no rule needs to be asked about."""
        attempt = self._record(head, reason, phase)
        return LocalAnswer(self.response_for(refusal), attempt, has_body(head))

    def _record(self, head: RequestHead, reason: Reason, phase: Phase = Phase.REQUEST) -> Attempt:
        session = self._session
        return session.gate.refuse(
            session.client_info,
            phase,
            reason,
            self.target,
            method=head.method,
            scheme=self.scheme.value,
            path=head.path,
        )
