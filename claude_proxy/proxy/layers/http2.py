"""HTTP/2 inside a tunnel: each stream is judged by the gate, and one cannot starve the others.

Every exit is gated: the stream's head is judged before anything is done with it, and a denial is
sent at the head, without waiting for the body. The frames of a chunk are worked off a few at a
time, with turns of the event loop between them; what waits is bounded by the windows that the
client and the origins get, and floods end the connection (RFC 9113 section 10.5).
"""

import math
from collections.abc import Callable, Iterable

from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from claude_proxy.events import Phase
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.questions import Facts
from claude_proxy.policy.reason import Reason
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.layers.admission import Denied, admit
from claude_proxy.proxy.layers.asking import AnswerCame, AwaitAnswer, StopAwaiting, ended_unanswered
from claude_proxy.proxy.layers.http2_asked import AskedStream
from claude_proxy.proxy.layers.http2_connection import GoAway, Http2Connection
from claude_proxy.proxy.layers.http2_exchange import Http2Exchange, answer
from claude_proxy.proxy.layers.http2_fields import (
    Http2Request,
    read_request,
    read_trailers,
    shown_pseudo,
)
from claude_proxy.proxy.layers.http2_frames import Http2Error
from claude_proxy.proxy.layers.http2_upstreams import Http2Upstreams, Upstream
from claude_proxy.proxy.layers.session import (
    ContinueLater,
    RanApart,
    RuleRevoked,
    RunApart,
    Session,
    TimedOut,
    TurnCame,
    Waiting,
)
from claude_proxy.proxy.responses import Refusal, bad_request
from claude_proxy.proxy.upstream_errors import TIMED_OUT
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.head import BadMessage

# How often it is looked for streams that stand still, and floods are counted anew.
_LOOK_S = 5.0
# After its answer an upload has once to twice as long to end by itself.
_STOP_S = 0.25
_BROKEN_OFF = "stream-broken-off"


class Http2Lane(layer.Layer):
    """One HTTP/2 connection inside the tunnel to `target`."""

    def __init__(self, context: Context, session: Session, target: Authority) -> None:
        super().__init__(context)
        self._target = target
        self.session = session
        self.client = Http2Connection(
            client_side=False,
            head_limit=session.head_limit,
            budget=session.windows,
            taken=self._client_took,
        )
        self._upstreams = Http2Upstreams(session, target, self)
        self._exchanges: dict[int, Http2Exchange] = {}
        self._asked: dict[int, AskedStream] = {}  # that the owner is asked about
        self._holding: dict[Http2Exchange, None] = {}  # whose bodies are not whole, oldest first
        self._awaited: Http2Exchange | None = None  # the one whose body is waited for
        # Who has frames to be worked off, in turn; None is the client.
        self._busy: dict[Upstream | None, None] = {}
        self._dirty: dict[Upstream, None] = {}  # those that may have something to send
        self._replies: dict[int, tuple[commands.Command, Upstream]] = {}
        self._apart: dict[RunApart, Callable[[], None]] = {}  # what to do when it is done
        self._out: list[commands.Command] = []
        self._awaits_turn = False
        self._next_stop: commands.RequestWakeup | None = None  # of answered uploads
        self._next_look: commands.RequestWakeup | None = None
        limits = session.limits
        self._look_s = min(_LOOK_S, limits.idle_timeout_s / 2)
        self._idle_looks = math.ceil(limits.idle_timeout_s / self._look_s)
        self._handshake_looks = math.ceil(limits.handshake_timeout_s / self._look_s)
        session.reads_while_sending = True
        session.owes_body = self._owes_body
        session.queued_bytes = self._queued_bytes
        self._is_leaving = False  # the client opens no further streams
        self._over = False

    # --- events

    def handle_event(self, event: events.Event) -> Iterable[commands.Command]:  # type: ignore[override]
        """Take an event; return what is to be done.

        Nothing here waits for a reply, so none of the base class's pausing is needed.
        """
        try:
            self._on(event)
            self._end_turn()
        except Exception:
            # A fault denies: the driver ends the connection.
            self._over = True
            for exchange in list(self._exchanges.values()):
                self.session.gate.end(exchange.attempt, Reason.INTERNAL_ERROR.value)
            self._leave(Reason.INTERNAL_ERROR.value)
            raise
        out, self._out = self._out, []
        return out

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from self.handle_event(event)

    def _on(self, event: events.Event) -> None:
        client = self.context.client
        if isinstance(event, events.ConnectionClosed) and event.connection is client:
            self._client_closed()
        elif self._over:
            pass
        elif isinstance(event, events.DataReceived) and event.connection is client:
            self.client.feed(event.data)
            self._busy[None] = None
        elif isinstance(event, events.ConnectionEvent):
            if (upstream := self._upstreams.find(event.connection)) is not None:
                upstream.handle(event)
        elif isinstance(event, events.CommandCompleted):
            self._replied(event)
        else:
            self._on_time(event)

    def _on_time(self, event: events.Event) -> None:
        if isinstance(event, TurnCame):
            self._awaits_turn = False
        elif isinstance(event, events.Start):
            self.session.wait(Waiting.IDLE)
        elif isinstance(event, (TimedOut, RuleRevoked)):
            self._ended_from_outside(event)

    def _replied(self, event: events.CommandCompleted) -> None:
        if event.command is self._next_look:
            self._look()
            return
        if event.command is self._next_stop:
            self._next_stop = None
            for number in self.client.stop_unwanted():
                if (exchange := self._exchanges.get(number)) is not None:
                    exchange.break_off(None)
            return
        if isinstance(event, RanApart):
            self._apart.pop(event.command)()
            return
        if isinstance(event, AnswerCame):
            self._answer_came(event.command, event.reply)
            return
        _, upstream = self._replies.pop(id(event.command), (None, None))
        if upstream is not None and self._upstreams.find(upstream.connection) is upstream:
            upstream.handle(event)

    # --- turns

    def _end_turn(self) -> None:
        """Work off frames until the turn is over, and send what they lead to."""
        if not self._over and not self._awaits_turn:
            self._work()
        if not self._over:
            self._upstreams.settle()
        while self._dirty:
            upstream, _ = self._dirty.popitem()
            upstream.flush()
        if not self._over:
            self._wait()
            self._flush_client()
            self._set_timers()
            self._close_if_done()

    def _set_timers(self) -> None:
        if self._busy and not self._awaits_turn:
            self._awaits_turn = True
            self._out.append(ContinueLater())
        if self._next_look is None and (self._exchanges or not self.client.is_quiet):
            self._next_look = commands.RequestWakeup(self._look_s)
            self._out.append(self._next_look)
        if self._next_stop is None and self.client.has_unwanted:
            self._next_stop = commands.RequestWakeup(_STOP_S)
            self._out.append(self._next_stop)

    def _close_if_done(self) -> None:
        ends = self.session.closing or self._is_leaving
        done = not self._exchanges and not self._asked
        if ends and done and not self.client.all_queued:
            self._close(ErrorCodes.NO_ERROR)

    def _work(self) -> None:
        while self._busy:
            source = next(iter(self._busy))
            del self._busy[source]
            if source is not None:
                self._dirty[source] = None
            while self._step() if source is None else source.step():
                if self.session.is_turn_over():
                    self._busy[source] = None  # the others come first
                    return

    def _step(self) -> bool:
        """Work off one frame of the client; tell whether there was one."""
        try:
            several = self.client.next()
            for event in several or ():
                self._on_client(event)
        except Http2Error as error:
            self._client_broke_rules(error)
            return False
        return several is not None and not self._over

    def _owes_body(self) -> bool:
        several = self._exchanges.values()
        return bool(several) and all(exchange.owes_body for exchange in several)

    def _queued_bytes(self) -> int:
        pending = sum(exchange.pending for exchange in self._exchanges.values())
        pending += sum(asked.size for asked in self._asked.values())
        return self.client.all_queued + self._upstreams.all_queued + pending

    def _wait(self) -> None:
        """Say what is waited for, again for each body: each has the whole time limit."""
        awaited = next(iter(self._holding), None)
        if awaited is not None:
            wanted = Waiting.BODY
        elif self._exchanges and self._upstreams.waiting == len(self._exchanges):
            wanted = Waiting.UPSTREAM
        elif self._asked and not self._exchanges:
            wanted = Waiting.ANSWER
        else:
            is_idle = not self._exchanges and not self.client.all_queued
            wanted = Waiting.IDLE if is_idle else Waiting.EXCHANGE
        if self.session.waiting is not wanted or self._awaited is not awaited:
            self._awaited = awaited
            self.session.wait(wanted)

    def _flush_client(self) -> None:
        if data := self.client.take():
            self._out.append(commands.SendData(self.context.client, data))

    # --- for the upstreams: see `Execution`

    def execute(self, upstream: Upstream, several: Iterable[commands.Command]) -> None:
        """Execute commands of an upstream connection when this turn ends."""
        for command in several:
            if isinstance(command, commands.OpenConnection):
                self._replies[id(command)] = command, upstream
            self._out.append(command)

    def has_bytes(self, upstream: Upstream) -> None:
        """Send for an upstream connection, and work off what it has sent, in this turn."""
        self._dirty[upstream] = None
        if upstream.unread:
            self._busy[upstream] = None

    # --- what the client sends

    def _on_client(self, event: Event | GoAway) -> None:
        if isinstance(event, RequestReceived):
            self._begin(event)
            return
        if isinstance(event, GoAway):
            self._is_leaving = True
            return
        number = getattr(event, "stream_id", None) or 0
        if (asked := self._asked.get(number)) is not None:
            self._on_asked(asked, event)
            return
        exchange = self._exchanges.get(number)
        if exchange is None:
            return  # what still comes of a request that was answered
        try:
            self._on_stream(exchange, event)
        except BadMessage as error:
            exchange.attempt.error = "bad-request-body"
            exchange.refuse(bad_request(error.text, error.status))
        if exchange in self._holding and not exchange.holds_body:
            del self._holding[exchange]

    def _on_stream(self, exchange: Http2Exchange, event: Event) -> None:
        match event:
            case DataReceived():
                data = bytes(event.data or b"")
                padding = (event.flow_controlled_length or 0) - len(data)
                if padding:
                    self.client.passed_on(exchange.number, padding, at_once=False)
                if exchange.answered:
                    self.client.still_wanted(exchange.number)
                exchange.data(data, end=event.stream_ended is not None)
            case TrailersReceived():
                exchange.finish(read_trailers(event.headers or (), 400))
            case StreamEnded() if not exchange.request_over:
                exchange.finish()
            case StreamReset():
                exchange.break_off(_BROKEN_OFF)

    def _begin(self, event: RequestReceived) -> None:
        """Judge a request's head before anything is done with it."""
        session, number, raw = self.session, event.stream_id, event.headers or []
        if session.closing:
            # RFC 9113 section 8.7: nothing was done with it, so the client may send it again.
            self.client.reset(number, ErrorCodes.REFUSED_STREAM)
            return
        end = event.stream_ended is not None
        try:
            request = read_request(raw, limit=session.head_limit, end=end)
        except BadMessage as error:
            method, path = shown_pseudo(raw, b":method"), shown_pseudo(raw, b":path")
            attempt = self._record_unreadable(method, path)
            self._answer(number, attempt, bad_request(error.text, error.status), None)
            return
        self._judge(number, request, end=end)

    def _judge(
        self,
        number: int,
        request: Http2Request,
        *,
        end: bool,
        answer: Answer | None = None,
        before: AwaitAnswer | None = None,
    ) -> None:
        judged = request.judged(self._target)
        admission = admit(self.session, judged, request.path, answer)
        if isinstance(admission, Facts):
            awaited = AwaitAnswer(admission, before)
            self._asked[number] = AskedStream(number, request, end, awaited)
            self._out.append(awaited)
            return
        if isinstance(admission, Denied):
            self._answer(number, admission.attempt, admission.refusal, request)
            return
        exchange = Http2Exchange(self, number, request, admission)
        self._exchanges[number] = exchange
        exchange.begin(end=end)
        if exchange.holds_body:
            self._holding[exchange] = None

    def _on_asked(self, asked: AskedStream, event: Event) -> None:
        if isinstance(event, StreamReset):
            del self._asked[asked.number]
            self._out.append(StopAwaiting(asked.awaited))
            ended_unanswered(self.session, asked.awaited, _BROKEN_OFF)
        else:
            asked.keep(event)

    def _answer_came(self, awaited: AwaitAnswer, answer: Answer) -> None:
        """Judge a request again, of which nothing has left, now that the owner was asked."""
        number = next((each.number for each in self._asked.values() if each.awaited is awaited), 0)
        asked = self._asked.pop(number, None)
        if asked is None:
            return
        self._judge(number, asked.request, end=asked.end, answer=answer, before=awaited)
        for event in asked.later:
            self._on_client(event)

    def _record_unreadable(self, method: str, path: str) -> Attempt:
        session = self.session
        return session.gate.refuse(
            session.client_info,
            Phase.REQUEST,
            Reason.BAD_REQUEST,
            self._target,
            method=method,
            scheme="https",
            path=path if session.record_query else path.partition("?")[0],
        )

    def _answer(
        self, number: int, attempt: Attempt, refusal: Refusal, request: Http2Request | None
    ) -> None:
        attempt.status = refusal.status
        self.session.gate.end(attempt)
        answer(self.client, number, refusal, request)

    def wants_upstream(self, exchange: Http2Exchange) -> None:
        """Have an exchange wait for an upstream connection until this turn ends, or longer."""
        self._upstreams.want(exchange)

    def run_apart(self, command: RunApart, then: Callable[[], None]) -> None:
        """Have work done in another thread, and go on by `then`."""
        self._apart[command] = then
        self._out.append(command)

    def ended(self, exchange: Http2Exchange) -> None:
        """Forget an exchange."""
        self._exchanges.pop(exchange.number, None)
        self._holding.pop(exchange, None)
        self._upstreams.forget(exchange)

    def _client_took(self, number: int, size: int) -> None:
        if (exchange := self._exchanges.get(number)) is not None:
            exchange.delivered(size)

    # --- time

    def _look(self) -> None:
        """End what stands still, and begin the next window of the flood meters."""
        self._next_look = None
        self.client.renew()
        self._upstreams.renew()
        self._upstreams.look(self._handshake_looks)
        for exchange in list(self._exchanges.values()):
            exchange.idle_looks = 0 if exchange.active else exchange.idle_looks + 1
            exchange.active = False
            if exchange.idle_looks > self._idle_looks and not exchange.is_waiting:
                self._time_out(exchange)

    def _ended_from_outside(self, event: TimedOut | RuleRevoked) -> None:
        """End every stream, as nothing came for too long or the rule is gone."""
        if isinstance(event, RuleRevoked):
            self._end_all(Reason.RULE_WITHDRAWN.value, ErrorCodes.NO_ERROR)
            return
        for asked in list(self._asked.values()):
            self._answer_came(asked.awaited, Answer.NONE)
        for exchange in list(self._exchanges.values()):
            self._time_out(exchange)
        self._end_all("idle-timeout", ErrorCodes.NO_ERROR)

    def _time_out(self, exchange: Http2Exchange) -> None:
        if exchange.holds_body:
            exchange.attempt.error = "bad-request-body"
            exchange.refuse(Refusal(408, "bad-request", "The request body did not come in time."))
        elif exchange.has_begun:
            self.client.reset(exchange.number, ErrorCodes.CANCEL)
            exchange.break_off("idle-timeout")
        else:
            exchange.fail(TIMED_OUT)

    # --- ends

    def _client_broke_rules(self, error: Http2Error) -> None:
        outcome = _BROKEN_OFF
        if error.code == ErrorCodes.ENHANCE_YOUR_CALM:
            session, outcome = self.session, Reason.HTTP2_FLOOD.value
            attempt = session.gate.refuse(
                session.client_info,
                Phase.REQUEST,
                Reason.HTTP2_FLOOD,
                self._target,
                scheme="https",
            )
            session.gate.end(attempt)
        self._end_all(outcome, error.code)

    def _client_closed(self) -> None:
        if not self._over:
            self._end_all(self.session.loss, ErrorCodes.NO_ERROR)
        if self.context.client.state is ConnectionState.CLOSED:
            self._out.clear()  # the driver has released everything

    def _end_all(self, outcome: str, code: ErrorCodes | int) -> None:
        """End all streams without a response, and the connection."""
        for exchange in list(self._exchanges.values()):
            exchange.break_off(outcome)
        self._leave(outcome)
        self._close(code)

    def _leave(self, why: str) -> None:
        """Record the end of all requests that wait for the owner's answer."""
        while self._asked:
            _, asked = self._asked.popitem()
            ended_unanswered(self.session, asked.awaited, why)

    def _close(self, code: ErrorCodes | int) -> None:
        self._over = True
        self._asked.clear()
        self._busy.clear()
        self._upstreams.close_all()
        self.client.end(code)
        self._flush_client()
        self._out.append(commands.CloseConnection(self.context.client))
