"""Is a gateway to its callers: one API's calls come in, and one configured upstream is asked.

Laws kept: every exit is gated (3), secrets stay outside (9). It is one more front before the same
lane: whom it lets in, what it serves and how it words its answers are its own; what may leave, with
which credential and to where, is judged and recorded as everywhere. The upstream is configured and
never asked for, so a caller cannot name another one.
"""

import hmac
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, override

from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context

from claude_proxy.config.settings import Gateway, GatewayMode
from claude_proxy.events import Phase
from claude_proxy.policy.messages.model_override import with_model
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request
from claude_proxy.proxy.dialer import Dialer
from claude_proxy.proxy.gateway import responses, strict
from claude_proxy.proxy.gateway.policy import CREDENTIAL
from claude_proxy.proxy.gateway.quotas import MINUTE_S, Meter, day_began
from claude_proxy.proxy.gateway.responses import Reply
from claude_proxy.proxy.gateway.routes import Missed, Route, route_of
from claude_proxy.proxy.inspection.base import RawField
from claude_proxy.proxy.layers.http1 import Http1Lane
from claude_proxy.proxy.layers.http1_exchange import Exchange
from claude_proxy.proxy.layers.protocol_detection import ProtocolDetection
from claude_proxy.proxy.layers.session import NO_ADDRESS, Session, Waiting
from claude_proxy.proxy.layers.upstream import UpstreamConnection
from claude_proxy.proxy.responses import REASON_FIELD, Refusal, bad_request, denial
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.head import RequestHead, ResponseHead, TargetForm

logger = logging.getLogger(__name__)


def _reason(reason: str) -> RawField:
    return (REASON_FIELD.encode("ascii"), reason.encode("ascii"))


_VERSION_FIELD = b"anthropic-version"
_VERSION = b"2023-06-01"
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([^ ]+) *").fullmatch
_NO_PROXY = "this is a gateway and no proxy: it is asked for a path"
_UNKNOWN_CALLER = "This gateway wants a token of its callers, and this is not it."
_UNKNOWN_USER = "This gateway is not for this user or this machine."
# Whatever page a browser shows may send requests to this machine and, by a name of its own that it
# has resolved anew, read the answers. Such a request has an Origin (RFC 6454 7), says that a site
# made it (Fetch Metadata), or asks for that name.
_NO_SITE = b"none"
_LOCAL_NAMES = frozenset({"localhost", "ip6-localhost"})
_A_PAGE = "A page in a browser may not use this gateway without its token."
_NOT_SERVED = "This gateway serves no such path."
_NOT_SO = "This path is not served by this method."
_ENOUGH = "As much as the owner of this gateway allows has been used."
_BAD_REQUEST = 400
_UNAUTHENTICATED = 401
_FORBIDDEN = 403
_TOO_LARGE = 413
_INVALID = 422
_TOO_MANY = 429
_FAULT = 500
_NOT_REACHED = frozenset({502, 504})
# What a user hears whom a Unix socket is not for, and a machine that may not connect.
UNKNOWN_CALLER = responses.api_error(
    _UNAUTHENTICATED, f"claude-proxy: {_UNKNOWN_USER}", _reason(Reason.CLIENT_NOT_ALLOWED.value)
).http1(head_only=False, close=True)
# Of what a caller of strict mode sends; nothing else is asked for by the one call that it serves.
_STRICT_FIELDS = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})
_STRICT_KEPT = _STRICT_FIELDS | {b"expect", b"anthropic-version", b"anthropic-beta"}
# Of a request that was never offered to the upstream, faults are answered by their kind.
_STATUS_OF = {
    Reason.INTERNAL_ERROR.value: _FAULT,
    Reason.BODY_TOO_LARGE.value: _TOO_LARGE,
}


class UsageCounter(Protocol):
    """Whoever knows what has gone through, of all processes: the audit log."""

    def requests_since(self, moment_ns: int, credential: str) -> int:
        """Return how many requests went with a credential."""

    def used_since(self, moment_ns: int, credential: str) -> int:
        """Return the tokens that were used up with a credential."""


@dataclass(frozen=True, slots=True, eq=False)
class GatewayState:
    """What all connections to one gateway share."""

    gateway: Gateway
    meter: Meter
    counts: UsageCounter
    clock: Callable[[], float] = time.time

    def begin(self) -> int | None:
        """Let a request begin; if it may not, return after how many seconds one may."""
        ceilings, now = self.gateway.ceilings, self.clock()
        requests = tokens = 0
        if ceilings.requests_per_minute is not None:
            requests = self.counts.requests_since(_ns(now - MINUTE_S), CREDENTIAL)
        if ceilings.tokens_per_day is not None:
            tokens = self.counts.used_since(_ns(day_began(now)), CREDENTIAL)
        return self.meter.begin(now, requests=requests, tokens=tokens)


def desk_of(gateway: Gateway, counts: UsageCounter) -> GatewayState:
    """Return the desk of one process."""
    return GatewayState(gateway, Meter(gateway.ceilings), counts)


class GatewayFront(ProtocolDetection):
    """The first layer of a gateway's connection: a relay may say for whom it connects."""

    def __init__(
        self,
        context: Context,
        session: Session,
        dialer: Dialer,
        desk: GatewayState,
        token: str | None,
    ) -> None:
        super().__init__(context, session, dialer)
        self._desk = desk
        self._token = token

    def _choose(self) -> Iterator[commands.Command]:
        lane = lane_of(self.context, self._session, self._desk, self._token)
        yield from self._become(lane, self._taken())


def lane_of(
    context: Context, session: Session, desk: GatewayState, token: str | None
) -> "GatewayLane":
    """Return the lane of the gateway's mode."""
    is_strict = desk.gateway.mode is GatewayMode.STRICT
    return (StrictLane if is_strict else GatewayLane)(context, session, desk, token)


@dataclass(frozen=True, slots=True)
class _Own(Refusal):
    """A refusal whose answer says more than its status and its reason."""

    reply: Reply | None = None


class GatewayLane(Http1Lane):
    """The lane to a gateway's upstream, as Claude Code needs it: what passes is not changed."""

    def __init__(
        self, context: Context, session: Session, desk: GatewayState, token: str | None
    ) -> None:
        base = desk.gateway.upstream
        super().__init__(context, session, scheme=base.scheme, target=base.authority)
        self._desk = desk
        self._gateway = desk.gateway
        self._token = None if token is None else token.encode("utf-8")

    def handle_event(self, event: events.Event) -> Iterable[commands.Command]:  # type: ignore[override]
        """Take an event; a fault of ours is an answer, as long as there has been none."""
        before = self._exchange
        try:
            return super().handle_event(event)
        except Exception as error:
            exchange, self._exchange = self._exchange, None
            if self._over or any(one is not None and one.begun for one in (before, exchange)):
                if exchange is not None:
                    self._session.gate.end(exchange.passage, Reason.INTERNAL_ERROR.value)
                raise  # the connection is ended by whoever drives it (law 8)
            logger.error("a call was ended by a fault (%s)", type(error).__name__)  # noqa: TRY400 - a traceback may hold what a caller sent
            logger.debug("the fault", exc_info=error)
            return self._after_fault(exchange)

    def _after_fault(self, exchange: Exchange | None) -> Iterable[commands.Command]:
        self._up.clear()
        refusal = Refusal(_FAULT, Reason.INTERNAL_ERROR.value, "A fault of the gateway's own.")
        if exchange is not None:
            exchange.passage.status = _FAULT
            self._session.gate.end(exchange.passage, refusal.reason)
        if self._upstream is not None:
            self._forget(self._upstream)
        self._send_down(self._worded(None, refusal, close=True)[1])
        self._close_client()
        todo, self._todo = self._todo, []
        return todo

    # --- requests

    def _begin(self, head: RequestHead) -> None:
        if head.form in (TargetForm.ABSOLUTE, TargetForm.AUTHORITY):
            self._turn_down(head, Reason.INVALID_TARGET, bad_request(_NO_PROXY), close=True)
            return
        route = route_of(self._gateway.mode, head.method, head.path)
        if isinstance(route, Route) and not route.forwarded:
            self._say(head, self._own_reply(route))
        elif not self._knows(head):
            refusal = _refusal(_UNAUTHENTICATED, Reason.CLIENT_NOT_AUTHENTICATED, _UNKNOWN_CALLER)
            self._turn_down(head, Reason.CLIENT_NOT_AUTHENTICATED, refusal, Phase.CLIENT)
        elif self._token is None and self._is_of_a_page(head):
            refusal = _refusal(_FORBIDDEN, Reason.CLIENT_NOT_ALLOWED, _A_PAGE)
            self._turn_down(head, Reason.CLIENT_NOT_ALLOWED, refusal, Phase.CLIENT)
        elif isinstance(route, Missed):
            self._turn_down(head, Reason.ENDPOINT_NOT_ALLOWED, self._missed(route))
        elif head.upgrade:
            refusal = denial(Reason.UPGRADE_REFUSED.value, "", None)
            self._turn_down(head, Reason.UPGRADE_REFUSED, refusal)
        elif (wait_s := self._desk.begin()) is not None:
            self._turn_down(head, Reason.CEILING_REACHED, self._enough(wait_s))
        else:
            self._address(head)
            super()._begin(head)

    def _knows(self, head: RequestHead) -> bool:
        """Tell whether the caller shows the token; in the time that any token takes."""
        if self._token is None:
            return True
        bearers = [_BEARER(value) for value in head.get_all(b"authorization")]
        shown = [bearer[1] for bearer in bearers if bearer is not None]
        shown += head.get_all(b"x-api-key")
        return any([hmac.compare_digest(one, self._token) for one in shown])  # noqa: C419 - all

    def _is_of_a_page(self, head: RequestHead) -> bool:
        if head.get(b"origin") is not None or head.get(b"sec-fetch-site") not in {None, _NO_SITE}:
            return True
        # A Unix socket is out of a browser's reach; what stands before it may name any host.
        peer = self.context.client.peername
        return peer[:1] != NO_ADDRESS[:1] and not _is_local(head.host)

    def _address(self, head: RequestHead) -> None:
        """Make of what is asked of us what is asked of the upstream."""
        head.origin_target = self._gateway.upstream.path + head.origin_target
        head.host = None  # the lane writes that of the target
        if head.get(_VERSION_FIELD) is None:
            head.fields.append((_VERSION_FIELD, _VERSION))

    def _request_of(self, head: RequestHead) -> Request:
        base = self._gateway.upstream
        path, _, query = head.origin_target.partition("?")
        return Request(
            base.scheme, base.authority, base.authority, head.method, path, query, head.fields
        )

    def _hold_limit(self, exchange: Exchange) -> int | None:
        # Every body is held: one that is too long is to be refused before anything is sent.
        if exchange.body is None and exchange.head.method != "POST":
            return None
        narrowed = super()._hold_limit(exchange)
        most = self._gateway.request_bytes
        return most if narrowed is None else min(most, narrowed)

    def _content(self, exchange: Exchange, body: bytes) -> bytes | Refusal:
        # What leaves is what is judged: so the model is put in first.
        if self._gateway.models:
            try:
                body = with_model(body, self._gateway.models)
            except ValueError:
                self._deny_content(exchange, Reason.BODY_UNREADABLE, _FORBIDDEN)
                return denial(Reason.BODY_UNREADABLE.value, exchange.asked, None)
        return super()._content(exchange, body)

    def _deny_content(self, exchange: Exchange, reason: Reason, status: int) -> None:
        """Record that a request ends by what its body says."""
        session, request = self._session, exchange.request
        denied = session.gate.refuse(
            session.client_info,
            Phase.CONTENT,
            reason,
            request.target,
            method=request.method,
            scheme=request.scheme.value,
            path=request.path,
        )
        exchange.passage.error, denied.status = denied.decision.reason.value, status
        session.gate.end(denied)

    # --- answers of our own

    def _own_reply(self, route: Route) -> Reply:
        if route is Route.HELLO:
            return Reply(200, b"", ())
        return responses.json_reply(200, {"status": "ok", "mode": self._gateway.mode.value})

    def _say(self, head: RequestHead, reply: Reply) -> None:
        """Answer what nothing has to be asked for; it leaves no trace."""
        close = _has_body(head) or not head.keep_alive or self._session.closing
        self._send_down(reply.http1(head_only=head.method == "HEAD", close=close))
        if close:
            self._close_client()
        else:
            self._session.wait(Waiting.IDLE)

    def _missed(self, missed: Missed) -> Refusal:
        text = _NOT_SO if missed.methods else _NOT_SERVED
        reason = _reason(Reason.ENDPOINT_NOT_ALLOWED.value)
        reply = self._error(missed.status, text, *_allow(missed), reason)
        return _refusal(missed.status, Reason.ENDPOINT_NOT_ALLOWED, text, reply)

    def _enough(self, wait_s: int) -> Refusal:
        after = (b"Retry-After", b"%d" % wait_s)
        reply = self._error(_TOO_MANY, _ENOUGH, after, _reason(Reason.CEILING_REACHED.value))
        return _refusal(_TOO_MANY, Reason.CEILING_REACHED, _ENOUGH, reply)

    def _turn_down(
        self,
        head: RequestHead,
        reason: Reason,
        refusal: Refusal,
        phase: Phase = Phase.REQUEST,
        *,
        close: bool = False,
    ) -> None:
        """Deny a request that no rule needs to be asked about."""
        session = self._session
        passage = session.gate.refuse(
            session.client_info,
            phase,
            reason,
            self._gateway.upstream.authority,
            method=head.method,
            scheme=self._scheme.value,
            path=head.path,
        )
        self._answer(head, passage, refusal, close=close or _has_body(head))

    def _worded(
        self, head: RequestHead | None, refusal: Refusal, *, close: bool
    ) -> tuple[int, bytes]:
        reply = refusal.reply if isinstance(refusal, _Own) else None
        if reply is None:
            reply = self._reply_of(refusal)
        head_only = head is not None and head.method == "HEAD"
        return reply.status, reply.http1(head_only=head_only, close=close)

    def _reply_of(self, refusal: Refusal) -> Reply:
        status = _STATUS_OF.get(refusal.reason, refusal.status)
        return self._error(status, refusal.explanation, _reason(refusal.reason))

    def _error(self, status: int, text: str, *more: RawField) -> Reply:
        if _BAD_REQUEST <= status < _FAULT and status != _TOO_MANY:
            # Anthropic's clients retry a 401 for minutes, but heed this field; nothing of what is
            # refused here comes to be allowed by waiting.
            more = (*more, (b"x-should-retry", b"false"))
        return responses.api_error(status, f"claude-proxy: {text}", *more)


class StrictLane(GatewayLane):
    """The lane of strict mode: one call, read whole, and no word of the provider's in return."""

    def __init__(
        self, context: Context, session: Session, desk: GatewayState, token: str | None
    ) -> None:
        super().__init__(context, session, desk, token)
        self._gathered = bytearray()

    def _address(self, head: RequestHead) -> None:
        head.origin_target = head.path
        head.fields = [field for field in head.fields if field[0].lower() in _STRICT_KEPT]
        head.fields += [(b"Content-Type", b"application/json"), (b"Accept", b"application/json")]
        super()._address(head)

    def _content(self, exchange: Exchange, body: bytes) -> bytes | Refusal:
        try:
            body = strict.read(body).written()
        except strict.Invalid as invalid:
            self._deny_content(exchange, Reason.BAD_REQUEST, _INVALID)
            reply = responses.detail(_INVALID, invalid.shown())
            return _refusal(_INVALID, Reason.BAD_REQUEST, "The request is not valid.", reply)
        return super()._content(exchange, body)

    def _abandon(self, exchange: Exchange, refusal: Refusal) -> None:
        self._gathered.clear()
        super()._abandon(exchange, refusal)

    # --- the upstream's answer: nothing of it is sent before all of it is here

    @override
    def _send_interim(self, head: ResponseHead) -> None:
        pass

    @override
    def _send_answer_head(self, exchange: Exchange, head: ResponseHead) -> None:
        self._gathered.clear()

    @override
    def _send_content(
        self, exchange: Exchange, content: bytes, trailers: list[RawField], *, done: bool
    ) -> None:
        self._gathered += content
        too_long = len(self._gathered) > self._gateway.answer_bytes
        if too_long or not self._session.gate.hold(exchange.passage, len(content)):
            self._gathered.clear()
            self._fail(exchange, "upstream-answer-too-large", "the answer is too large")

    def _answered(self, exchange: Exchange, upstream: UpstreamConnection, rest: bytes) -> None:
        answer = exchange.answer
        if answer is not None:
            content = bytes(self._gathered)
            self._gathered.clear()
            reply = responses.normalised(
                answer.status,
                answer.fields,
                content,
                keeps_retry_after=self._gateway.keeps_retry_after,
            )
            exchange.passage.status, exchange.begun = reply.status, True
            close = not exchange.keep_alive or self._session.closing
            self._send_down(reply.http1(head_only=False, close=close))
        super()._answered(exchange, upstream, rest)

    # --- answers of our own

    def _missed(self, missed: Missed) -> Refusal:
        text = "Method not allowed" if missed.methods else "Not found"
        reply = responses.detail(missed.status, text, *_allow(missed))
        return _refusal(missed.status, Reason.ENDPOINT_NOT_ALLOWED, text, reply)

    def _reply_of(self, refusal: Refusal) -> Reply:
        # How the upstream could not be reached is for the audit log alone.
        if refusal.status in _NOT_REACHED:
            return responses.failed()
        if refusal.reason == Reason.INTERNAL_ERROR.value:
            return responses.fault()
        return super()._reply_of(refusal)

    def _error(self, status: int, text: str, *more: RawField) -> Reply:
        return responses.strict_error(status, text, *more)


def _is_local(host: bytes | None) -> bool:
    """Tell whether a Host is an address or a name of this machine: none that a page could have."""
    if host is None:
        return True  # HTTP/1.0, which no browser speaks
    try:
        asked = Authority.parse(host, default_port=80)
    except ValueError:
        return False
    return asked.address is not None or asked.host in _LOCAL_NAMES


def _refusal(status: int, reason: Reason, text: str, reply: Reply | None = None) -> Refusal:
    return _Own(status, reason.value, text, reply=reply)


def _allow(missed: Missed) -> tuple[RawField, ...]:
    # RFC 9110 15.5.6
    return ((b"Allow", ", ".join(missed.methods).encode("ascii")),) if missed.methods else ()


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


def _has_body(head: RequestHead) -> bool:
    return head.chunked or bool(head.length)
