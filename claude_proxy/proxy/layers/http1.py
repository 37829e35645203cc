"""Carries HTTP/1.1 from a client to upstreams, one judged request at a time.

Law 3: every request on a connection is judged, not only the first. What goes upstream is
emitted from what was judged. Bodies stream both ways and are never kept; a denial is
answered at the head, without waiting for the body.
"""

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import events
from mitmproxy.proxy.context import Context

from claude_proxy.policy.policy import OVERRIDE_HEADERS
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.proxy.dialer import Dialer, DialError
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.inspection.base import RawField, ResponseCutOff
from claude_proxy.proxy.layers.client_auth import head_admits
from claude_proxy.proxy.layers.http1_base import Http1Replies
from claude_proxy.proxy.layers.http1_exchange import Exchange
from claude_proxy.proxy.layers.session import PauseReading, RuleRevoked, Session, TimedOut, Waiting
from claude_proxy.proxy.layers.upstream import UpstreamConnection, UpstreamEnded, UpstreamOpened
from claude_proxy.proxy.responses import Refusal, bad_request, denial, no_room, too_large
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.body import (
    LAST_CHUNK,
    Body,
    body_of_request,
    body_of_response,
    chunk,
    emit_trailers,
)
from claude_proxy.wire.http1.emit import Framing, emit_response_head, framing_of
from claude_proxy.wire.http1.head import BadMessage, RequestHead, ResponseHead, TargetForm
from claude_proxy.wire.http1.request import read_request_head
from claude_proxy.wire.http1.response import read_response_head

# What may wait here (pipelined requests, a body whose upstream is not open yet) before the client
# is no longer read.
_PENDING_LIMIT = 64 * 1024
_ALPN = (b"http/1.1",)
_INTERIM_LIMIT = 32
# RFC 7838: a client that follows it would try to get past the proxy by another host or by QUIC.
_DROPPED_FROM_ANSWERS = frozenset({b"alt-svc"})
_NOTHING: frozenset[bytes] = frozenset()
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_DEFAULT_PORTS = {Scheme.HTTP: 80, Scheme.HTTPS: 443}
# RFC 9110 9.2.2: these may be sent again when a kept connection turns out to be dead.
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


class Http1Lane(Http1Replies):
    """Everything between a client that speaks HTTP/1.1 and its upstreams.

    Inside a tunnel, `target` is what the tunnel was opened to and no request may leave it;
    without one, the client sends absolute-form requests as to a forward proxy (RFC 9112 3.2.2).
    """

    def __init__(
        self,
        context: Context,
        session: Session,
        *,
        scheme: Scheme,
        target: Authority | None,
        dialer: Dialer | None = None,
    ) -> None:
        super().__init__(context, session, scheme=scheme, target=target)
        # Asked how a forwarded request must look; dials nothing here. Without one, requests look
        # as an origin wants them, and another proxy is asked for a tunnel.
        self._dialer = dialer
        self._held = False

    # --- events

    def _on(self, event: events.Event) -> None:
        if isinstance(event, events.ConnectionClosed) and event.connection is self.context.client:
            self._client_closed()
        elif self._over:
            pass
        elif isinstance(event, events.DataReceived) and event.connection is self.context.client:
            self._client_data(event.data)
        elif isinstance(event, (events.ConnectionEvent, events.CommandCompleted)):
            upstream = self._upstream
            if upstream is not None and upstream.owns(event):
                self._todo.extend(upstream.handle(event))
                self._read_inbox(upstream)
        elif isinstance(event, events.Start):
            self._session.wait(Waiting.IDLE)
        elif isinstance(event, TimedOut):
            self._expired()
        elif isinstance(event, RuleRevoked):
            self._drop(Reason.RULE_WITHDRAWN.value)

    def _client_data(self, data: bytes) -> None:
        if self._relaying:
            if self._exchange is not None and self._upstream is not None:
                self._exchange.passage.bytes_up += len(data)
                self._send_up(data)
            return
        exchange = self._exchange
        if exchange is not None and exchange.body is not None and not self._in and exchange.takes:
            self._pass_up(exchange, exchange.body, data)
        else:
            self._in += data
        self._advance()

    def _advance(self) -> None:
        """Do with the client's bytes what can be done with them now."""
        while not self._over and not self._relaying:
            exchange = self._exchange
            if exchange is None:
                if not (self._next_request()):
                    break
            elif exchange.body is not None and self._in and exchange.takes:
                data = bytes(self._in)
                self._in.clear()
                self._pass_up(exchange, exchange.body, data)
            else:
                break
        # Without an exchange it is a head that waits for its end, and has a limit of its own.
        waits = self._exchange is not None and not self._over
        hold = waits and len(self._in) > _PENDING_LIMIT
        if hold is not self._held:
            self._held = hold
            self._todo.append(PauseReading(self.context.client, hold=hold))

    # --- requests

    def _next_request(self) -> bool:
        """Begin the next request; tell whether there was one."""
        head: RequestHead | None = None
        if self._in:
            try:
                head = read_request_head(self._in, self._session.head_limit)
            except BadMessage as error:
                self._refuse_message(error)
                return False
        if head is not None:
            self._begin(head)
            return True
        if not self.context.client.state & ConnectionState.CAN_READ:
            self._close_client()
        elif self._in and self._session.waiting is not Waiting.HEAD:
            self._session.wait(Waiting.HEAD)
        return False

    def _begin(self, head: RequestHead) -> None:
        session = self._session
        if not self._admits(head):
            asked = f"{head.method} {head.target}"
            self._refuse(head, Reason.CLIENT_NOT_AUTHENTICATED, asked, None)
            return
        try:
            request = self._request_of(head)
        except ValueError as error:
            asked = f"{head.method} {head.target}"
            self._refuse(head, Reason.INVALID_TARGET, asked, None, str(error))
            return
        if request is None:
            self._refuse(head, Reason.PROXY_LOOP, f"{head.method} {head.path}", None)
            return
        asked = f"{head.method} {request.scheme.value}://{_shown(request)}"
        if head.upgrade and "websocket" not in head.upgrade:
            self._refuse(head, Reason.UPGRADE_REFUSED, asked, request)
            return
        shown = head.origin_target if session.record_query else head.path
        passage = session.gate.request(session.client_info, request, shown)
        if not passage.decision.allowed:
            self._deny(head, passage, asked, request.target)
            return
        self._forward(head, request, passage, asked)

    def _admits(self, head: RequestHead) -> bool:
        # A tunnel's client has shown who it is when it asked for the tunnel.
        wanted = self._session.credentials
        return self._target is not None or wanted is None or head_admits(wanted, head)

    def _request_of(self, head: RequestHead) -> Request | None:
        """Return the facts to judge; None if the proxy itself is asked; may raise ValueError."""
        target, scheme = self._target, self._scheme
        if target is None:
            if head.form is not TargetForm.ABSOLUTE:
                return None
            if head.scheme != Scheme.HTTP.value:
                raise ValueError("only http is asked for in this form; use CONNECT for the rest")
            target = Authority.parse(head.authority, default_port=80)
        elif head.form in (TargetForm.ABSOLUTE, TargetForm.AUTHORITY):
            # RFC 9112 3.2.2 lets an origin take absolute-form; inside a tunnel it could only
            # say the same again, or try to say something else.
            raise ValueError("inside a tunnel the target has no host of its own")
        if head.host is None:
            host = target
        else:
            host = Authority.parse(head.host, default_port=_DEFAULT_PORTS[scheme])
        path, _, query = head.origin_target.partition("?")
        return Request(scheme, target, host, head.method, path, query, head.fields)

    def _forward(self, head: RequestHead, request: Request, passage: Attempt, asked: str) -> None:
        websocket = "websocket" in head.upgrade
        origin_target, extra = head.origin_target, list[tuple[bytes, bytes]]()
        dialer = self._dialer
        if dialer is not None and dialer.via_proxy(request.target):
            # RFC 9112 3.2.4: the "*" of OPTIONS is in absolute-form no path at all.
            path = "" if head.origin_target == "*" else head.origin_target
            origin_target = f"http://{_without_default(request)}{path}"
            if (authorization := dialer.proxy_authorization()) is not None:
                extra.append((b"Proxy-Authorization", authorization))
        custody = passage.custody
        drop = OVERRIDE_HEADERS if passage.decision.restricted else _NOTHING
        exchange = Exchange(
            head=head,
            passage=passage,
            asked=asked,
            request=request,
            origin_target=origin_target,
            host=None if head.host else _without_default(request).encode(),
            body=body_of_request(head),
            websocket=websocket,
            drop=drop | custody.drop if custody.drop else drop,
            extra=(*extra, *custody.extra),
            watch=self._session.gate.watch(passage, request),
        )
        self._exchange = exchange
        limit = self._hold_limit(exchange)
        if limit is None:
            self._go(exchange)
        else:
            self._hold(exchange, limit)

    def _hold_limit(self, exchange: Exchange) -> int | None:
        """Return how long a body may be that is judged before any of it leaves; None: it is not."""
        return self._session.gate.holds_body(exchange.request)

    def _hold(self, exchange: Exchange, limit: int) -> None:
        """Keep the body back until it is whole and was judged."""
        exchange.held, exchange.hold_limit = bytearray(), limit
        self._session.wait(Waiting.BODY)
        if (exchange.head.length or 0) > limit:
            self._abandon(exchange, too_large(exchange.asked))
        elif exchange.body is None:
            self._judge_content(exchange)
        elif exchange.head.expects_continue:
            self._send_down(_CONTINUE)  # the upstream, which would say so, is not asked yet

    def _judge_content(self, exchange: Exchange) -> None:
        body = bytes(exchange.held or b"")
        exchange.held = None
        found = self._content(exchange, body)
        if isinstance(found, Refusal):
            self._abandon(exchange, found)
            return
        exchange.content = found
        self._go(exchange)

    def _content(self, exchange: Exchange, body: bytes) -> bytes | Refusal:
        """Return what goes upstream as the body, or why nothing does."""
        session, request = self._session, exchange.request
        decision = session.gate.content(session.client_info, exchange.passage, request, body)
        if decision.allowed:
            return body
        return denial(decision.reason.value, exchange.asked, request.target, request.scheme)

    def _go(self, exchange: Exchange) -> None:
        """Send the request on: on the open connection to its target, or on a new one."""
        request = exchange.request
        upstream = self._upstream
        if upstream is not None and upstream.is_open and upstream.target == request.target:
            self._session.wait(Waiting.EXCHANGE)
            self._send_head(exchange, upstream)
            return
        self._dial(request.target)

    def _dial(self, target: Authority) -> None:
        if self._upstream is not None:
            self._todo.extend(self._upstream.close())
        self._answers.clear()
        tls = self._scheme is Scheme.HTTPS
        tunnel = tls or self._dialer is None
        self._upstream = upstream = UpstreamConnection(
            self.context, target, tls=tls, alpn=_ALPN, tunnel=tunnel
        )
        self._session.wait(Waiting.UPSTREAM)
        self._todo.extend(upstream.open())
        self._read_inbox(upstream)

    def _send_head(self, exchange: Exchange, upstream: UpstreamConnection) -> None:
        exchange.sent = True
        passage, content = exchange.passage, exchange.content
        passage.upstream = upstream.address
        upstream.exchanges += 1
        self._send_up(exchange.emitted())
        if content:
            exchange.body_sent = True
            passage.bytes_up += len(content)
            self._send_up(content)

    def _pass_up(self, exchange: Exchange, body: Body, data: bytes) -> None:
        upstream = self._upstream
        try:
            content, done, rest = body.feed(data)
        except BadMessage as error:
            exchange.passage.error = "bad-request-body"
            self._abandon(exchange, bad_request(error.text))
            return
        if done:
            exchange.body = None
        if rest:
            self._in[:0] = rest
        if exchange.held is not None:
            self._keep(exchange, exchange.held, content)
            return
        exchange.passage.bytes_up += len(content)
        if upstream is None or not upstream.is_open:
            return  # it answered early and left; the rest of the body goes nowhere
        out = chunk(content) if exchange.head.chunked else content
        if done and exchange.head.chunked:
            trailers = body.trailers
            if trailers and not self._session.gate.takes_trailers(exchange.request):
                trailers = []
            out += emit_trailers(trailers, drop=exchange.drop) if trailers else LAST_CHUNK
        if out:
            exchange.body_sent = True
            self._send_up(out)

    def _keep(self, exchange: Exchange, held: bytearray, content: bytes) -> None:
        if len(held) + len(content) > exchange.hold_limit:
            self._abandon(exchange, too_large(exchange.asked))
        elif not self._session.gate.hold(exchange.passage, len(content)):
            self._abandon(exchange, no_room(exchange.asked))
        else:
            held += content
            if exchange.body is None:
                self._judge_content(exchange)

    # --- answers

    def _read_inbox(self, upstream: UpstreamConnection) -> None:
        inbox = upstream.inbox
        while inbox and upstream is self._upstream:
            arrival = inbox.popleft()
            try:
                if isinstance(arrival, bytes):
                    self._answer_data(upstream, arrival)
                elif isinstance(arrival, UpstreamOpened):
                    self._opened(upstream, arrival.error)
                elif isinstance(arrival, UpstreamEnded):
                    self._upstream_ended(upstream)
            except ResponseCutOff as cut:
                self._cut(cut.word)

    def _cut(self, word: str) -> None:
        """End an answer that the client must not have; what it has already is not taken back."""
        exchange = self._exchange
        if exchange is not None and not exchange.begun:
            text = "the answer holds what may not leave the proxy, or cannot be read"
            self._fail(exchange, word, text)
        else:
            self._drop(word)

    def _opened(self, upstream: UpstreamConnection, error: DialError | str | None) -> None:
        exchange = self._exchange
        if error is not None:
            self._upstream = None
            if exchange is not None:
                self._not_reached(exchange, error)
                self._advance()
            return
        upstream.is_open = True
        if exchange is None:
            return
        session, request = self._session, exchange.request
        decision = session.gate.leave(session.client_info, exchange.passage, request)
        if not decision.allowed:
            reason = decision.reason.value
            refusal = denial(reason, exchange.asked, request.target, request.scheme)
            self._abandon(exchange, refusal)
        else:
            session.wait(Waiting.EXCHANGE)
            self._send_head(exchange, upstream)
        self._advance()

    def _answer_data(self, upstream: UpstreamConnection, data: bytes) -> None:
        exchange = self._exchange
        if self._relaying and exchange is not None:
            exchange.passage.bytes_down += len(data)
            self._send_down(exchange.watched(data))
            return
        if exchange is None or not exchange.sent:
            # RFC 9112 9.2: bytes that answer nothing. They could be made to answer the next
            # request (response splitting), so the connection is not used again.
            self._forget(upstream)
            return
        if exchange.answer is None:
            self._answers += data
            if not (self._read_answers(exchange)):
                return
            data = bytes(self._answers)
            self._answers.clear()
        self._pass_down(exchange, upstream, data)

    def _read_answers(self, exchange: Exchange) -> bool:
        """Read heads until the final one; tell whether it came and its body is to be read."""
        while True:
            try:
                head = read_response_head(
                    self._answers, self._session.head_limit, method=exchange.head.method
                )
            except BadMessage as error:
                self._bad_answer(exchange, error.text)
                return False
            if head is None:
                return False
            if head.status == 101:  # noqa: PLR2004 - Switching Protocols
                self._switch(exchange, head)
                return False
            if head.status >= 200:  # noqa: PLR2004 - a final answer
                self._answer_head(exchange, head)
                return True
            exchange.show(head)
            exchange.interim += 1
            if exchange.interim > _INTERIM_LIMIT:
                self._bad_answer(exchange, "the upstream sent interim answers without end")
                return False
            if exchange.head.minor:  # RFC 9110 15.2: never to an HTTP/1.0 client
                self._send_interim(head)

    def _send_interim(self, head: ResponseHead) -> None:
        out = emit_response_head(
            head, framing=Framing.NONE, keep_alive=True, drop=_DROPPED_FROM_ANSWERS
        )
        self._send_down(out)

    def _answer_head(self, exchange: Exchange, head: ResponseHead) -> None:
        request, passage = exchange.head, exchange.passage
        self._session.gate.answered(passage, head.status)
        exchange.show(head)
        exchange.answer = head
        exchange.answer_body = body_of_response(head, request.method)
        exchange.framing = framing_of(head, method=request.method, minor=request.minor)
        exchange.keep_alive = (
            request.keep_alive
            and exchange.framing is not Framing.CLOSE
            # An answer before the request's end: what the client still sends is not waited for.
            and exchange.body is None
            and not self._session.closing
        )
        self._send_answer_head(exchange, head)

    def _send_answer_head(self, exchange: Exchange, head: ResponseHead) -> None:
        exchange.begun = True
        out = emit_response_head(
            head,
            framing=exchange.framing,
            keep_alive=exchange.keep_alive,
            minor=exchange.head.minor,
            drop=_DROPPED_FROM_ANSWERS,
        )
        self._send_down(out)

    def _pass_down(self, exchange: Exchange, upstream: UpstreamConnection, data: bytes) -> None:
        body = exchange.answer_body
        if body is None:
            self._answered(exchange, upstream, data)
            return
        try:
            content, done, rest = body.feed(data)
        except BadMessage as error:
            self._bad_answer(exchange, error.text)
            return
        exchange.passage.bytes_down += len(content)
        content = exchange.watched(content, done=done)
        if done and body.trailers:
            exchange.show_fields(body.trailers)
        self._send_content(exchange, content, body.trailers, done=done)
        if done and self._exchange is exchange:
            self._answered(exchange, upstream, rest)

    def _send_content(
        self, exchange: Exchange, content: bytes, trailers: list[RawField], *, done: bool
    ) -> None:
        chunked = exchange.framing is Framing.CHUNKED
        out = chunk(content) if chunked else content
        if done and chunked:
            out += emit_trailers(trailers) if trailers else LAST_CHUNK
        self._send_down(out)

    def _answered(self, exchange: Exchange, upstream: UpstreamConnection, rest: bytes) -> None:
        """End the exchange, its answer being complete; go on, or close."""
        answer = exchange.answer
        self._exchange = None
        self._session.gate.end(exchange.passage)
        if rest or exchange.body is not None or answer is None or not answer.keep_alive:
            self._forget(upstream)
        if not exchange.keep_alive or self._session.closing:
            self._close_client()
            return
        self._session.wait(Waiting.IDLE)
        if self._in or not self.context.client.state & ConnectionState.CAN_READ:
            self._advance()

    def _switch(self, exchange: Exchange, head: ResponseHead) -> None:
        """Begin to relay bytes, if a WebSocket is what was asked for and granted."""
        if not exchange.websocket or head.upgrade != ("websocket",):
            self._bad_answer(exchange, "upstream switched to what was not asked for")
            return
        exchange.show(head)
        self._relaying = True
        self._session.websocket_request = exchange.request
        exchange.answer, exchange.begun = head, True
        self._session.gate.answered(exchange.passage, head.status)
        self._session.wait(Waiting.TUNNEL)
        out = emit_response_head(
            head, framing=Framing.NONE, keep_alive=True, drop=_DROPPED_FROM_ANSWERS
        )
        rest = bytes(self._answers)
        self._answers.clear()
        exchange.passage.bytes_down += len(rest)
        self._send_down(out)
        self._send_down(exchange.watched(rest))
        if self._in:
            early = bytes(self._in)
            self._in.clear()
            exchange.passage.bytes_up += len(early)
            self._send_up(early)
        self._advance()  # goes on reading a client that was held

    # --- ends and failures

    def _upstream_ended(self, upstream: UpstreamConnection) -> None:
        exchange = self._exchange
        repeats = exchange is not None and self._may_repeat(exchange, upstream)
        self._forget(upstream)
        if exchange is None or exchange.held is not None:
            return  # nothing of it was sent: it is dialled anew once it may be
        body = exchange.answer_body
        if self._relaying:
            self._drop(None)
        elif exchange.answer is None:
            if repeats:
                exchange.sent = False
                self._dial(exchange.request.target)
            else:
                text = "the upstream closed the connection without an answer"
                self._fail(exchange, "upstream-closed", text)
        elif body is not None and body.eof() and upstream.ended_well:
            self._send_content(exchange, exchange.watched(b"", done=True), [], done=True)
            if self._exchange is exchange:
                self._answered(exchange, upstream, b"")
        elif exchange.begun:
            # Cut short: the client must not take it for whole, so no last chunk is sent.
            self._drop("upstream-cut-short")
        else:
            self._fail(exchange, "upstream-cut-short", "the upstream broke off its answer")

    def _may_repeat(self, exchange: Exchange, upstream: UpstreamConnection) -> bool:
        return (
            upstream.exchanges > 1
            and not self._answers
            and not exchange.body_sent
            and exchange.head.method in _REPEATABLE
        )

    def _client_closed(self) -> None:
        exchange = self._exchange
        if self.context.client.state is ConnectionState.CLOSED:
            self._over = True
            if exchange is not None:
                self._exchange = None
                self._session.gate.end(exchange.passage, "client-closed")
            return
        if exchange is None:
            self._advance()
        elif exchange.body is not None or self._relaying:
            self._drop("client-closed")
        # Else the client has merely half-closed and waits for its answer (RFC 9112 9.6).


def _without_default(request: Request) -> str:
    target = request.target
    text = str(target)
    if target.port == _DEFAULT_PORTS[request.scheme]:
        return text.rpartition(":")[0]
    return text


def _shown(request: Request) -> str:
    return _without_default(request) + ("" if request.path == "*" else request.path)
