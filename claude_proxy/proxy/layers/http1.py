"""HTTP/1.1 between a client and its upstreams, one judged request at a time.

Every exit is gated: every request on a connection is judged, not only the first. What goes
upstream is emitted from what was judged. Bodies stream both ways and are not kept; a denial is
answered at the head, without waiting for the body. The states are in `http1_states`.
"""

import logging
from collections.abc import Iterable

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from claude_proxy.events import Phase
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.questions import Facts
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.dialer import DialError
from claude_proxy.proxy.inspection.base import ResponseCutOff
from claude_proxy.proxy.layers.admission import takes_long
from claude_proxy.proxy.layers.asking import AnswerCame, AwaitAnswer, ended_unanswered
from claude_proxy.proxy.layers.connection_records import can_read
from claude_proxy.proxy.layers.http1_exchange import Exchange
from claude_proxy.proxy.layers.http1_response_writer import Response, emit_bodiless
from claude_proxy.proxy.layers.http1_role import LocalAnswer, OwnResponse, Role
from claude_proxy.proxy.layers.http1_states import (
    MOVES,
    TAKES_BODY,
    TAKES_RESPONSE,
    State,
    Step,
)
from claude_proxy.proxy.layers.outbox import Outbox
from claude_proxy.proxy.layers.session import (
    ContinueLater,
    PauseReading,
    RanApart,
    RuleRevoked,
    RunApart,
    Session,
    TimedOut,
    TurnCame,
    Waiting,
)
from claude_proxy.proxy.layers.upstream import (
    UpstreamConnection,
    UpstreamEnded,
    UpstreamOpened,
    is_worth_another,
)
from claude_proxy.proxy.responses import Refusal, bad_request
from claude_proxy.proxy.upstream_errors import (
    CUT_SHORT,
    TIMED_OUT,
    UpstreamError,
    bad_response,
    cut_off,
)
from claude_proxy.proxy.warm_keys import Route
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.body import LAST_CHUNK, Body, body_of_response, chunk, emit_trailers
from claude_proxy.wire.http1.emit import Framing, framing_of
from claude_proxy.wire.http1.head import BadMessage, RequestHead, ResponseHead
from claude_proxy.wire.http1.request import read_request_head
from claude_proxy.wire.http1.response import read_response_head

logger = logging.getLogger(__name__)

# What may wait here (pipelined requests, a body whose upstream is not open yet) before the client
# is no longer read.
_PENDING_LIMIT = 64 * 1024
_ALPN = (b"http/1.1",)
_INTERIM_LIMIT = 32
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BAD_REQUEST = 400
# RFC 9110 9.2.2: these may be sent again when a kept connection turns out to be dead.
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


class Http1Lane(layer.Layer):
    """Carries requests and responses; its role says which requests it serves, and how."""

    def __init__(self, context: Context, session: Session, role: Role) -> None:
        super().__init__(context)
        self._session = session
        self._role = role
        self._state = State.IDLE
        self._exchange: Exchange | None = None
        self._upstream: UpstreamConnection | None = None
        self._in = bytearray()  # of the client, not used yet
        self._heads = bytearray()  # of the upstream: heads of a response, not read yet
        self._out = Outbox(context.client)
        self._holds_reading = False
        self._awaits_turn = False
        self._apart: tuple[RunApart, Exchange, bytes] | None = None  # a body that is judged
        # What the owner is asked about, while nothing else is done on this connection.
        self._asked: tuple[AwaitAnswer, RequestHead] | None = None
        session.owes_body = self._owes_body

    # --- events

    def handle_event(self, event: events.Event) -> Iterable[commands.Command]:  # type: ignore[override]
        """Take an event; return what is to be done.

        Nothing here waits for a reply, so none of the base class's pausing is needed.
        """
        exchange = self._exchange
        try:
            self._on(event)
        except Exception as error:
            if not self._answer_fault(error, exchange):
                raise  # the driver ends the connection: a fault denies
        # A pipeline whose client takes no answers gets no more; an upload may end before its client
        # reads.
        self._session.reads_while_sending = self._exchange is None
        return self._out.take(self._upstream)

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from self.handle_event(event)

    def _on(self, event: events.Event) -> None:
        client = self.context.client
        if isinstance(event, events.DataReceived):  # nearly always
            if self._state is State.CLOSED:
                pass
            elif event.connection is client:
                self._client_data(event.data)
            else:
                self._of_upstream(event)
        elif isinstance(event, events.ConnectionClosed) and event.connection is client:
            self._client_closed()
        elif self._state is State.CLOSED:
            pass
        elif isinstance(event, RanApart):
            self._ran_apart(event.command)
        elif isinstance(event, AnswerCame):
            self._answer_came(event.command, event.reply)
        elif isinstance(event, (events.ConnectionEvent, events.CommandCompleted)):
            self._of_upstream(event)
        else:
            self._on_other(event)

    def _of_upstream(self, event: events.ConnectionEvent | events.CommandCompleted) -> None:
        upstream = self._upstream
        if upstream is not None and upstream.owns(event):
            self._out.extend(upstream.handle(event))
            self._read_inbox(upstream)

    def _on_other(self, event: events.Event) -> None:
        if isinstance(event, events.Start):
            self._session.wait(Waiting.IDLE)
        elif isinstance(event, TurnCame):
            self._awaits_turn = False
            self._advance()
        elif isinstance(event, TimedOut):
            self._timed_out()
        elif isinstance(event, RuleRevoked):
            self._drop(Reason.RULE_WITHDRAWN.value)

    def _owes_body(self) -> bool:
        exchange = self._exchange
        return exchange is not None and exchange.body is not None and self._state in TAKES_BODY

    def _move(self, step: Step) -> None:
        self._state, waiting = MOVES[self._state][step]
        if waiting is not None:
            self._session.wait(waiting)

    def _client_data(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None or self._in:
            self._in += data
        elif self._state is State.RELAYING:
            exchange.attempt.bytes_up += len(data)
            self._out.to_upstream(data)
            return
        elif exchange.body is not None and self._state in TAKES_BODY:
            self._pass_up(exchange, exchange.body, data)
        else:
            self._in += data
        self._advance()

    def _advance(self) -> None:
        """Do with the client's bytes what can be done with them now."""
        while self._state is not State.CLOSED and self._state is not State.RELAYING:
            if self._asked is not None:
                break
            exchange = self._exchange
            if exchange is None:
                if self._awaits_turn or not self._next_request():
                    break
                if self._exchange is None and self._in and self._session.is_turn_over():
                    # Of a pipeline, each request is short, but there may be thousands.
                    self._awaits_turn = True
                    self._out.add(ContinueLater())
                    break
            elif exchange.body is not None and self._in and self._state in TAKES_BODY:
                data = bytes(self._in)
                self._in.clear()
                self._pass_up(exchange, exchange.body, data)
            else:
                break
        # Without an exchange it is a head that waits for its end, and has a limit of its own.
        waits = self._exchange is not None or self._asked is not None
        hold = waits and len(self._in) > _PENDING_LIMIT
        if hold is not self._holds_reading:
            self._holds_reading = hold
            self._out.add(PauseReading(self.context.client, hold=hold))

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
        if not can_read(self.context.client):
            self._close_client()
        elif self._in and self._session.waiting is not Waiting.HEAD:
            self._session.wait(Waiting.HEAD)
        return False

    def _begin(
        self, head: RequestHead, answer: Answer | None = None, before: AwaitAnswer | None = None
    ) -> None:
        admitted = self._role.admit(head, answer)
        if isinstance(admitted, Facts):
            awaited = AwaitAnswer(admitted, before)
            self._asked = awaited, head
            self._move(Step.ASK)
            self._out.add(awaited)
            return
        if isinstance(admitted, LocalAnswer):
            self._answer(head, admitted)
            return
        self._exchange = admitted
        if admitted.admission.body_limit is None:
            self._forward(admitted)
        else:
            self._hold(admitted)

    def _answer_came(self, awaited: AwaitAnswer, answer: Answer) -> None:
        """Judge a request again, of which nothing has left, now that the owner was asked."""
        asked, client = self._asked, self.context.client
        if asked is None or asked[0] is not awaited:
            return  # of a request that has ended
        self._asked = None
        self._begin(asked[1], answer, awaited)
        self._advance()
        if not can_read(client) and self._exchange is not None:
            self._client_closed()  # what was left undone when it half-closed

    def _hold(self, exchange: Exchange) -> None:
        """Keep the body back until it is whole and was judged."""
        exchange.held = bytearray()
        self._move(Step.HOLD)
        refusal = exchange.admission.check_length(exchange.head.length or 0)
        if refusal is not None:
            self._refuse(exchange, refusal)
        elif exchange.body is None:
            self._judge_body(exchange, b"")
        elif exchange.head.expects_continue:
            self._out.to_client(_CONTINUE)  # the upstream, which would say so, is not asked yet

    def _judge_body(self, exchange: Exchange, body: bytes) -> None:
        exchange.held = None
        if not takes_long(body):
            self._obey_judgement(exchange, body)
            return
        command = RunApart(lambda: self._role.judge_ahead(exchange, body), len(body))
        self._apart = command, exchange, body
        self._out.add(command)

    def _ran_apart(self, command: RunApart) -> None:
        apart, self._apart = self._apart, None
        # Not of a request that has ended meanwhile.
        if apart is not None and apart[0] is command and apart[1] is self._exchange:
            self._obey_judgement(*apart[1:])
            self._advance()

    def _obey_judgement(self, exchange: Exchange, body: bytes) -> None:
        judged = self._role.judge_body(exchange, body)
        if isinstance(judged, bytes):
            exchange.content = judged
            self._forward(exchange)
        else:
            self._abandon(exchange, judged)

    def _forward(self, exchange: Exchange) -> None:
        """Send the request on: on the open connection to its target, or on a new one."""
        target, upstream = exchange.admission.request.target, self._upstream
        if upstream is not None and upstream.is_open and upstream.target == target:
            self._send_head(exchange, upstream)
        else:
            self._dial(exchange)

    def _dial(self, exchange: Exchange, *, afresh: bool = False) -> None:
        """Get a connection: the one that is kept ready, unless `afresh`, or a new one."""
        if self._upstream is not None:
            self._forget(self._upstream)
        target = exchange.admission.request.target
        route = self._route_of(target)
        upstream = None if afresh else self._session.take_warm(route, exchange.attempt)
        self._move(Step.DIAL)
        if upstream is None:
            tls = self._session.tls_for(exchange.attempt) if route.tls else None
            upstream = UpstreamConnection(target, tls=tls, alpn=_ALPN, tunnel=route.tunnel)
            self._out.extend(upstream.open())
        self._upstream = upstream
        self._read_inbox(upstream)

    def _route_of(self, target: Authority) -> Route:
        return Route(target, self._role.scheme is Scheme.HTTPS, _ALPN, self._role.tunnels)

    def _keep_warm(self, exchange: Exchange, head: ResponseHead) -> None:
        """Have a connection opened for the next request, if this one needed a new one."""
        upstream = self._upstream
        if upstream is not None and upstream.exchanges == 1 and is_worth_another(head):
            self._session.keep_warm(self._route_of(upstream.target), exchange.attempt)

    def _send_head(self, exchange: Exchange, upstream: UpstreamConnection) -> None:
        self._move(Step.SEND)
        attempt, content = exchange.attempt, exchange.content
        attempt.upstream = upstream.address
        upstream.exchanges += 1
        self._out.to_upstream(exchange.emit_head())
        if content:
            if not exchange.body_sent:
                attempt.bytes_up += len(content)
            exchange.body_sent = True
            self._out.to_upstream(content)
        if exchange.replay:
            self._out.to_upstream(bytes(exchange.replay))
        is_first = upstream.is_warm and upstream.exchanges == 1
        exchange.replay = bytearray() if is_first else None

    def _pass_up(self, exchange: Exchange, body: Body, data: bytes) -> None:
        try:
            content, done, rest = body.feed(data)
        except BadMessage as error:
            exchange.attempt.error = "bad-request-body"
            self._refuse(exchange, bad_request(error.text))
            return
        if done:
            exchange.body = None
        if rest:
            self._in[:0] = rest
        if exchange.held is not None:
            self._keep(exchange, exchange.held, content)
            return
        exchange.attempt.bytes_up += len(content)
        out = chunk(content) if exchange.head.chunked else content
        if done and exchange.head.chunked:
            out += _end_of_chunks(exchange, body)
        if out:
            exchange.body_sent = True
            exchange.keep_for_replay(out)
            self._out.to_upstream(out)

    def _keep(self, exchange: Exchange, held: bytearray, content: bytes) -> None:
        refusal = exchange.admission.hold(len(content), held=len(held))
        if refusal is not None:
            self._refuse(exchange, refusal)
            return
        held += content
        if exchange.body is None:
            self._judge_body(exchange, bytes(held))

    # --- the upstream

    def _read_inbox(self, upstream: UpstreamConnection) -> None:
        inbox = upstream.inbox
        while inbox and upstream is self._upstream:
            arrival = inbox.popleft()
            try:
                if isinstance(arrival, bytes):
                    self._upstream_data(upstream, arrival)
                elif isinstance(arrival, UpstreamOpened):
                    self._opened(upstream, arrival.error)
                elif isinstance(arrival, UpstreamEnded):
                    self._upstream_ended(upstream)
            except ResponseCutOff as cut:
                self._cut(cut.word)

    def _opened(
        self, upstream: UpstreamConnection, error: DialError | UpstreamError | str | None
    ) -> None:
        exchange = self._exchange
        if error is not None:
            self._upstream = None
            if exchange is not None:
                self._fail(exchange, error)
                self._advance()
            return
        upstream.is_open = True
        if exchange is None:
            return
        if (refusal := exchange.admission.recheck()) is not None:
            self._refuse(exchange, refusal)
        else:
            self._send_head(exchange, upstream)
        self._advance()

    def _upstream_data(self, upstream: UpstreamConnection, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None or self._state not in TAKES_RESPONSE:
            if exchange is not None and self._state is State.RELAYING:
                exchange.attempt.bytes_down += len(data)
                self._out.to_client(exchange.inspect(data))
            else:
                self._forget(upstream)
            return
        response = exchange.response
        if response is None:
            self._heads += data
            response = self._read_heads(exchange)
            if response is None:
                return
            data = bytes(self._heads)
            self._heads.clear()
        self._pass_down(exchange, upstream, response, data)

    def _read_heads(self, exchange: Exchange) -> Response | None:
        """Read heads until the final one of a response to pass on has come."""
        while True:
            try:
                head = read_response_head(
                    self._heads, self._session.head_limit, method=exchange.head.method
                )
            except BadMessage as error:
                self._bad_response(exchange, error.text)
                return None
            if head is None:
                return None
            if head.status == 101:  # noqa: PLR2004 - Switching Protocols
                self._switch(exchange, head)
                return None
            if (refused := exchange.refused_by_proxy(head)) is not None:
                self._fail(exchange, refused)
                return None
            if head.status >= 200:  # noqa: PLR2004 - a final response
                return self._respond(exchange, head)
            exchange.inspect_head(head)
            exchange.interim_heads += 1
            if exchange.interim_heads > _INTERIM_LIMIT:
                self._bad_response(exchange, "the upstream sent interim responses without end")
                return None
            self._out.to_client(exchange.writer.interim(head))

    def _respond(self, exchange: Exchange, head: ResponseHead) -> Response:
        request = exchange.head
        self._session.gate.answered(exchange.attempt, head.status)
        exchange.inspect_head(head)
        self._keep_warm(exchange, head)
        framing = framing_of(head, method=request.method, minor=request.minor)
        keep_alive = (
            request.keep_alive
            and framing is not Framing.CLOSE
            # A response before the request's end: what the client still sends is not waited for.
            and exchange.body is None
            and not self._session.closing
        )
        body = body_of_response(head, request.method)
        exchange.replay = None
        exchange.response = response = Response(head, body, framing, keep_alive)
        self._move(Step.RESPOND)
        self._out.to_client(exchange.writer.start(response))
        return response

    def _pass_down(
        self, exchange: Exchange, upstream: UpstreamConnection, response: Response, data: bytes
    ) -> None:
        body = response.body
        if body is None:
            self._complete(exchange, upstream, response, data)
            return
        try:
            content, done, rest = body.feed(data)
        except BadMessage as error:
            self._bad_response(exchange, error.text)
            return
        exchange.attempt.bytes_down += len(content)
        content = exchange.inspect(content, done=done)
        if done and body.trailers:
            exchange.inspect_fields(body.trailers)
        self._out.to_client(exchange.writer.content(content, body.trailers, done=done))
        if done:
            self._complete(exchange, upstream, response, rest)

    def _complete(
        self, exchange: Exchange, upstream: UpstreamConnection, response: Response, rest: bytes
    ) -> None:
        """End the exchange, its response being complete; go on, or close."""
        close = not response.keep_alive or self._session.closing
        self._out.to_client(exchange.writer.finish(close=close))
        self._exchange = None
        self._session.gate.end(exchange.attempt)
        # What came behind its end was not asked for, so it could answer the next request.
        is_followed = rest or upstream.inbox
        if is_followed or exchange.body is not None or not response.head.keep_alive:
            self._forget(upstream)
        if close:
            self._close_client()
            return
        self._move(Step.FINISH)
        if self._in or not can_read(self.context.client):
            self._advance()

    def _switch(self, exchange: Exchange, head: ResponseHead) -> None:
        """Begin to relay bytes, if a WebSocket is what was asked for and granted."""
        if not exchange.is_websocket or head.upgrade != ("websocket",):
            self._bad_response(exchange, "the upstream switched to what was not asked for")
            return
        exchange.inspect_head(head)
        attempt = exchange.attempt
        self._move(Step.SWITCH)
        self._session.websocket_request = exchange.admission.request
        self._session.gate.answered(attempt, head.status)
        early_down, early_up = bytes(self._heads), bytes(self._in)
        self._heads.clear()
        self._in.clear()
        attempt.bytes_down += len(early_down)
        self._out.to_client(emit_bodiless(head))
        self._out.to_client(exchange.inspect(early_down))
        if early_up:
            attempt.bytes_up += len(early_up)
            self._out.to_upstream(early_up)
        self._advance()  # goes on reading a client that was held

    def _upstream_ended(self, upstream: UpstreamConnection) -> None:
        exchange = self._exchange
        repeats = exchange is not None and self._may_repeat(exchange, upstream)
        self._forget(upstream)
        if exchange is None or self._state is State.HOLDING:
            return  # nothing of it was sent: it is dialled once it may go
        response = exchange.response
        if self._state is State.RELAYING:
            self._drop(None)
        elif response is None:
            if repeats:
                self._dial(exchange, afresh=True)
            else:
                self._fail(exchange, upstream.failure)
        elif response.body is not None and response.body.eof() and upstream.ended_well:
            content = exchange.inspect(b"", done=True)
            self._out.to_client(exchange.writer.content(content, (), done=True))
            self._complete(exchange, upstream, response, b"")
        else:
            self._fail(exchange, CUT_SHORT)

    def _may_repeat(self, exchange: Exchange, upstream: UpstreamConnection) -> bool:
        """Tell whether a request may be sent again whose upstream has ended without a response."""
        if self._heads:
            return False
        if exchange.replay is not None and upstream.server.is_untouched:
            return True  # RFC 9110 9.2.2: nothing of it was applied, as nothing of it arrived
        may_be_dead = upstream.exchanges > 1 or upstream.is_warm
        return may_be_dead and not exchange.body_sent and exchange.head.method in _REPEATABLE

    # --- responses of our own

    def _refuse_message(self, error: BadMessage) -> None:
        """Answer what is not valid HTTP, and close: where it ends cannot be known."""
        session, role = self._session, self._role
        attempt = session.gate.refuse(
            session.client_info,
            Phase.REQUEST,
            Reason.BAD_REQUEST,
            role.target or "",
            scheme=role.scheme.value,
        )
        response = role.response_for(bad_request(error.text, error.status))
        self._answer(None, LocalAnswer(response, attempt, close=True))

    def _answer(self, head: RequestHead | None, answer: LocalAnswer) -> None:
        """Send a response of our own, and end its attempt."""
        close = answer.close or head is None or not head.keep_alive or self._session.closing
        self._out.to_client(_rendered(head, answer.response, close=close))
        if (attempt := answer.attempt) is not None:
            attempt.status = answer.response.status
            self._session.gate.end(attempt)
        if close:
            self._close_client()
        else:
            self._move(Step.FINISH)

    def _bad_response(self, exchange: Exchange, text: str) -> None:
        self._fail(exchange, bad_response(text))

    def _cut(self, reason: str) -> None:
        """End a response that the client must not have; what it has already is not taken back."""
        if self._exchange is not None:
            self._fail(self._exchange, cut_off(reason))
        else:
            self._drop(reason)

    def _fail(self, exchange: Exchange, error: DialError | UpstreamError | str) -> None:
        """End an exchange whose upstream failed."""
        self._refuse(exchange, exchange.admission.fail(error))

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        self._abandon(exchange, self._role.response_for(refusal))

    def _abandon(self, exchange: Exchange, response: OwnResponse) -> None:
        """End an exchange: by a response of our own if there was none, else by closing.

        Cut short, a response must not look whole, so no last chunk is sent.
        """
        if self._has_begun(exchange):
            self._drop(exchange.attempt.error)
            return
        self._exchange = None
        if self._upstream is not None:
            self._forget(self._upstream)
        close = exchange.body is not None or response.status == _BAD_REQUEST
        self._answer(exchange.head, LocalAnswer(response, exchange.attempt, close))

    def _has_begun(self, exchange: Exchange) -> bool:
        """Tell whether the client has a part of the response."""
        return self._state is State.RELAYING or exchange.writer.begun

    def _timed_out(self) -> None:
        exchange = self._exchange
        if self._asked is not None:
            self._session.closing = True  # the response says so too
            self._answer_came(self._asked[0], Answer.NONE)
        elif exchange is None:
            if self._session.waiting is Waiting.HEAD and self._in:
                refusal = Refusal(408, "bad-request", "The request head did not come in time.")
                response = self._role.response_for(refusal)
                self._out.to_client(_rendered(None, response, close=True))
        elif self._state is State.HOLDING:
            exchange.attempt.error = "bad-request-body"
            refusal = Refusal(408, "bad-request", "The request body did not come in time.")
            self._refuse(exchange, refusal)
        elif not self._has_begun(exchange):
            self._session.closing = True  # the response says so too
            self._fail(exchange, TIMED_OUT)
        self._drop("idle-timeout")

    def _answer_fault(self, error: Exception, before: Exchange | None) -> bool:
        """Answer an internal error if the role does that and nothing was sent; tell whether."""
        exchange, self._exchange = self._exchange, None
        response = self._role.fault()
        under_way = [one for one in (before, exchange) if one is not None]
        begun = any(self._has_begun(one) for one in under_way)
        if exchange is not None:
            if response is not None and not begun:
                exchange.attempt.status = response.status
            self._session.gate.end(exchange.attempt, Reason.INTERNAL_ERROR.value)
        if response is None or begun or self._state is State.CLOSED:
            return False
        logger.error("a request was ended by an internal error", exc_info=error)
        if self._upstream is not None:
            self._forget(self._upstream)
        self._out.to_client(_rendered(None, response, close=True))
        self._close_client()
        return True

    # --- ends

    def _client_closed(self) -> None:
        exchange = self._exchange
        if self.context.client.state is ConnectionState.CLOSED:
            self._leave(self._session.loss)
            if self._state is not State.CLOSED:
                self._move(Step.CLOSE)
            if exchange is not None:
                self._exchange = None
                self._session.gate.end(exchange.attempt, self._session.loss)
            return
        if exchange is None:
            if self._asked is None:
                self._advance()
        elif exchange.body is not None or self._state is State.RELAYING:
            self._drop(self._session.loss)
        # Else the client has merely half-closed and waits for its response (RFC 9112 9.6).

    def _drop(self, reason: str | None) -> None:
        """End the client's connection without a response."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._session.gate.end(exchange.attempt, reason)
        self._leave(reason or self._session.loss)
        if self._upstream is not None:
            self._forget(self._upstream)
        self._close_client()

    def _forget(self, upstream: UpstreamConnection) -> None:
        """Close an upstream connection that no request may use any more."""
        if self._upstream is upstream:
            self._upstream = None
            self._out.forget_upstream()
        self._heads.clear()
        self._out.extend(upstream.close())

    def _leave(self, why: str) -> None:
        """Record the end of a request that waits for the owner's answer, if there is one."""
        asked, self._asked = self._asked, None
        if asked is not None:
            ended_unanswered(self._session, asked[0], why)

    def _close_client(self) -> None:
        self._leave(self._session.loss)
        if self._state is not State.CLOSED:
            self._move(Step.CLOSE)
            self._out.close_client()


def _end_of_chunks(exchange: Exchange, body: Body) -> bytes:
    trailers = body.trailers
    if not trailers or not exchange.admission.takes_trailers:
        return LAST_CHUNK
    return emit_trailers(trailers, drop=exchange.admission.drop)


def _rendered(head: RequestHead | None, response: OwnResponse, *, close: bool) -> bytes:
    if head is None:
        return response.http1(close=close)
    accept, head_only = head.get(b"accept"), head.method == "HEAD"
    return response.http1(accept=accept, head_only=head_only, close=close)
