"""Carries HTTP/2 inside a tunnel through mitmproxy's own layers, each stream judged by the gate.

The judging is in the stream's layer and not in a hook: an answer set in mitmproxy's
`requestheaders` hook waits for the whole body, and here a denial is sent at the head.
"""

import re
import time
from collections.abc import Iterable, Iterator

from mitmproxy import http
from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    DropStream,
    ErrorCode,
    GetHttpConnection,
    GetHttpConnectionCompleted,
    HttpClient,
    HttpLayer,
    HTTPMode,
    HttpStream,
    RegisterHttpConnection,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
    SendHttp,
)
from mitmproxy.proxy.layers.http._base import HttpEvent
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Connection

from claude_proxy.events import Phase
from claude_proxy.policy.policy import OVERRIDE_HEADERS
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.inspection.base import CutOff, Field, Watch
from claude_proxy.proxy.layers.http1_upstream import Http1Origin
from claude_proxy.proxy.layers.session import HoldReading, RuleRevoked, Session, TimedOut, Waiting
from claude_proxy.proxy.layers.upstream import UpstreamTls
from claude_proxy.proxy.responses import (
    Refusal,
    bad_request,
    denial,
    no_room,
    sentence,
    too_large,
    unreachable,
    wants_json,
)
from claude_proxy.wire.authority import Authority

PASSAGE = "claude_proxy.passage"  # the key under which a flow carries its passage

_ALPN = (b"h2", b"http/1.1")
# The same shapes as in `wire`; of the bytes as they were sent, for mitmproxy folds and decodes.
_METHOD = re.compile(rb"[A-Z][A-Z0-9_-]{0,31}").fullmatch
# Bytes that may wait for a peer's flow-control window before their source is no longer read, and
# how many end the connection.
_BUFFER_LIMIT = 1024 * 1024
_BUFFER_END = 64 * 1024 * 1024

# What the HTTP/1.1 reader takes as a target, less absolute-form: see `wire.http1_request`.
_PATH = re.compile(rb"(?:/[\x21\x22\x24-\x7e]*|\*)").fullmatch
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_PROXY_FIELDS = frozenset({b"proxy-authorization", b"proxy-connection", b"proxy-authenticate"})
# "content_length" is to CGI and its heirs the same as "content-length".
_FRAMING_ALIASES = frozenset({b"content_length", b"transfer_encoding"})


class Http2Lane(HttpLayer):
    """One HTTP/2 connection inside the tunnel to `target`."""

    def __init__(self, context: Context, session: Session, target: Authority) -> None:
        super().__init__(context, HTTPMode.transparent)
        self._session = session
        self._target = target
        # mitmproxy opens upstream connections by these three: judged, not what the client wrote.
        context.server.address = (target.host, target.port)
        context.server.tls = True
        context.server.sni = target.host
        self._held: set[Connection] = set()
        self._awaited: GatedStream | None = None  # whose body it is that is waited for

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, (TimedOut, RuleRevoked)):
            yield commands.CloseConnection(self.context.client)
            return
        if isinstance(event, events.ConnectionEvent) and event.connection not in self.connections:
            return  # the last words of a connection that served its stream
        yield from super()._handle_event(event)
        if self.context.client.state is ConnectionState.CLOSED:
            # A stream that still waits for its upstream learns of nothing any more.
            for stream in self.streams.values():
                if isinstance(stream, GatedStream):
                    stream.break_off()
        self._forget_closed()
        self._wait()
        if self._session.closing and not self.streams:
            yield commands.CloseConnection(self.context.client)
            return
        yield from self._balance()

    def _wait(self) -> None:
        """Say what is waited for, and anew for each body: none answers for the time of others."""
        before = self._awaited
        self._awaited = before if self._keeps(before) else self._oldest_that_keeps()
        wanted = Waiting.EXCHANGE if self.streams else Waiting.IDLE
        if self._awaited is not None:
            wanted = Waiting.BODY
        if self._session.waiting is not wanted or self._awaited is not before:
            self._session.wait(wanted)

    def _oldest_that_keeps(self) -> "GatedStream | None":
        streams = (stream for stream in self.streams.values() if isinstance(stream, GatedStream))
        return next((stream for stream in streams if stream.keeps), None)

    def _keeps(self, stream: "GatedStream | None") -> bool:
        return stream is not None and stream.stream_id in self.streams and stream.keeps

    def _forget_closed(self) -> None:
        """Let go of upstream connections that are over: each HTTP/1.1 one serves one stream."""
        used: set[Connection] = {stream.context.server for stream in self.streams.values()}
        used.update(self.waiting_for_establishment, (self.context.client,))
        for connection in [found for found in self.connections if found not in used]:
            if connection.state is ConnectionState.CLOSED:
                del self.connections[connection]

    def _balance(self) -> layer.CommandGenerator[None]:
        """Read from nobody whose bytes wait here for a peer's flow-control window.

        mitmproxy keeps them without bound: a client that reads nothing would fill the memory.
        """
        client = self.context.client
        servers = [conn for conn in self.connections if conn is not client]
        down = _waiting_in(self.connections.get(client))
        up = max((_waiting_in(self.connections[conn]) for conn in servers), default=0)
        if down + up > _BUFFER_END:
            yield commands.CloseConnection(client)
            return
        # Never both: each side's window updates come in with its data, and both would wait.
        held: set[Connection] = set()
        if down > _BUFFER_LIMIT:
            # Only those whose streams the client does not take: it may be waiting for another
            # one before it takes more.
            held.update(self._sources_of_waiting().intersection(servers))
        elif up > _BUFFER_LIMIT:
            held.add(client)
        for connection in held ^ self._held:
            yield HoldReading(connection, hold=connection in held)
        self._held = held

    def _sources_of_waiting(self) -> set[Connection]:
        """Return the upstreams of the streams that have bytes waiting for the client's window."""
        handler = _http2_of(self.connections.get(self.context.client))
        waiting = {} if handler is None else handler.h2_conn.stream_buffers
        return {
            self.streams[number].context.server
            for number, pieces in waiting.items()
            if pieces and number in self.streams
        }

    def get_connection(
        self, event: GetHttpConnection, *, reuse: bool = True
    ) -> layer.CommandGenerator[None]:
        """Hand out the connection that is open to all streams or being opened, or a new one."""
        for connection in self.connections if reuse else ():
            if not event.connection_spec_matches(connection):
                continue
            if connection in self.waiting_for_establishment:
                self.waiting_for_establishment[connection].append(event)
                return
            if connection.connected and connection.alpn == b"h2":
                stream = self.command_sources.pop(event)
                reply = GetHttpConnectionCompleted(event, (connection, None))
                yield from self.event_to_child(stream, reply)
                return
        context = self.context.fork()
        # What is connected to and verified was judged; the client's wording is not asked.
        context.server = Server(address=event.address, sni=self._target.host, alpn_offers=_ALPN)
        stack = UpstreamTls(context)
        stack.child_layer = _Origin(context, self._session.head_limit)
        self.connections[context.server] = stack
        self.waiting_for_establishment[context.server].append(event)
        yield from self.event_to_child(stack, events.Start())

    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        """Make a stream that asks the gate first."""
        stream = GatedStream(self.context.fork(), stream_id, self._session, self._target)
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())


class _Origin(HttpClient):
    """Speaks with an upstream what its handshake settled on (ALPN)."""

    def __init__(self, context: Context, head_limit: int) -> None:
        super().__init__(context)
        self._head_limit = head_limit

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        server = self.context.server
        error = yield commands.OpenConnection(server)
        if error is None:
            if server.alpn == b"h2":
                self.child_layer = Http2Client(self.context)
            else:
                self.child_layer = Http1Origin(self.context, self._head_limit)
            self._handle_event = self.child_layer.handle_event  # type: ignore[method-assign]
            yield from self._handle_event(event)
        yield RegisterHttpConnection(server, error)


def _http2_of(handler: layer.Layer | None) -> Http2Connection | None:
    """Return the HTTP/2 connection that these layers end in, if they do."""
    while handler is not None and not isinstance(handler, Http2Connection):
        handler = getattr(handler, "child_layer", None)
    return handler


def _waiting_in(handler: layer.Layer | None) -> int:
    """Return how many bytes an HTTP/2 connection keeps until its peer takes them."""
    found = _http2_of(handler)
    if found is None:
        return 0
    buffers = found.h2_conn.stream_buffers.values()
    return sum(len(piece.data) for buffer in buffers for piece in buffer)


class GatedStream(HttpStream):
    """One request and its answer on an HTTP/2 connection."""

    def __init__(
        self, context: Context, stream_id: int, session: Session, target: Authority
    ) -> None:
        super().__init__(context, stream_id)
        self._session = session
        self._target = target
        self._watch: Watch | None = None
        self._hold_limit: int | None = None  # bytes of a body that is judged as a whole

    def state_wait_for_request_headers(self, event: RequestHeaders) -> layer.CommandGenerator[None]:
        """Judge the stream's head before mitmproxy does anything with it."""
        session, message = self._session, event.request
        problem = _problem_of(message, end_stream=event.end_stream)
        request = None if problem else self._request_of(message)
        method, sent = _shown(message.data.method), _shown(message.data.path)
        # Without the query, which may hold what is not to be repeated.
        host = str(self._target).removesuffix(":443")
        asked = f"{method} https://{host}{sent.partition('?')[0]}"
        path = sent if session.record_query else sent.partition("?")[0]
        if request is None:
            reason = Reason.BAD_REQUEST
            passage = session.gate.refuse(
                session.origin,
                Phase.REQUEST,
                reason,
                self._target,
                method=method,
                scheme="https",
                path=path,
            )
            text = problem or "the authority of the request cannot be read"
            yield from self._refuse(event, passage, bad_request(text))
            return
        passage = session.gate.request(session.origin, request, path)
        decision = passage.decision
        if not decision.allowed:
            refusal = denial(decision.reason.value, asked, self._target)
            yield from self._refuse(event, passage, refusal)
            return
        custody = passage.custody
        dropped = _PROXY_FIELDS | OVERRIDE_HEADERS if decision.restricted else _PROXY_FIELDS
        message.headers = without(message.headers, dropped | custody.drop, custody.extra)
        self._passage = passage
        self._asked = asked
        self._request = request
        self._watch = session.gate.watch(passage, request)
        self._hold_limit = limit = session.gate.holds_body(request)
        if limit is not None and int(message.headers.get("content-length", "0")) > limit:
            yield from self._refuse(event, passage, too_large(asked))
            return
        yield from super().state_wait_for_request_headers(event)

    @property
    def keeps(self) -> bool:
        """Whether a body is being kept that is not whole."""
        # Equal, not the same: each look at a method makes a new one.
        return bool(self.client_state == self.state_consume_request_body)

    def start_request_stream(self) -> layer.CommandGenerator[None]:
        """Let the body leave as it comes, unless it is to be judged first."""
        if self._hold_limit is None:
            yield from super().start_request_stream()
        else:
            self.client_state = self.state_consume_request_body

    def state_stream_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Let the body go on as it comes, without trailers in which a login would count."""
        if not self._drops(event):
            yield from super().state_stream_request_body(event)

    def _drops(self, event: events.Event) -> bool:
        trailers = isinstance(event, RequestTrailers)
        return trailers and not self._session.gate.takes_trailers(self._request)

    def state_consume_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Keep the body until it is whole, and judge it before any of it leaves."""
        if self._drops(event):
            return
        refusal: Refusal | None = None
        if isinstance(event, RequestData):
            refusal = self._kept(len(event.data))
        elif isinstance(event, RequestEndOfMessage):
            refusal = self._judged(bytes(self.request_body_buf))
            if refusal is not None:
                self.client_state = self.state_done
        if refusal is not None:
            self.request_body_buf.clear()
            yield from self._answer(self._passage, refusal)
            return
        yield from super().state_consume_request_body(event)

    def _kept(self, size: int) -> Refusal | None:
        """Return why `size` more bytes of a body cannot be kept, if they cannot."""
        if len(self.request_body_buf) + size > (self._hold_limit or 0):
            return too_large(self._asked)
        return None if self._session.gate.hold(self._passage, size) else no_room(self._asked)

    def _judged(self, body: bytes) -> Refusal | None:
        if self._hold_limit is None:
            return None
        session, passage = self._session, self._passage
        decision = session.gate.content(session.origin, passage, self._request, body)
        if not decision.allowed:
            return denial(decision.reason.value, self._asked, self._target)
        passage.bytes_up += len(body)
        return None

    def state_wait_for_response_headers(
        self, event: ResponseHeaders
    ) -> layer.CommandGenerator[None]:
        """Have the answer's head looked at before any of it goes down."""
        try:
            self._show(event.response.headers, event.response.status_code)
        except CutOff as cut:
            yield from self._cut(cut.word)
            return
        yield from super().state_wait_for_response_headers(event)

    def state_stream_response_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Have the answer's content looked at as it goes down."""
        watch = self._watch
        if watch is None:
            yield from super().state_stream_response_body(event)
            return
        try:
            if isinstance(event, ResponseData):
                event = ResponseData(self.stream_id, watch.feed(event.data))
            elif isinstance(event, ResponseTrailers):
                self._show(event.trailers, 200)
            elif isinstance(event, ResponseEndOfMessage) and (rest := watch.finish()):
                yield from super().state_stream_response_body(ResponseData(self.stream_id, rest))
        except CutOff as cut:
            yield from self._cut(cut.word)
            return
        if not isinstance(event, ResponseData) or event.data:
            yield from super().state_stream_response_body(event)

    def _show(self, fields: http.Headers, status: int) -> None:
        if self._watch is not None:
            self._watch.head(status, fields.fields)

    def _cut(self, word: str) -> layer.CommandGenerator[None]:
        """End an answer that the client must not have; what it has already is not taken back."""
        number = self.stream_id
        unanswered = self.server_state == self.state_wait_for_response_headers
        given_up = RequestProtocolError(number, word, ErrorCode.CANCEL)
        yield SendHttp(given_up, self.context.server)
        if unanswered:
            self._passage.error = word
            text = "The answer holds what may not leave the proxy, or cannot be read."
            refusal = unreachable(word, text, self._asked, timed_out=False)
            yield from self._answer(self._passage, refusal)
            return
        self._session.gate.end(self._passage, word)
        asked = self.client_state == self.state_done
        self.client_state = self.server_state = self.state_errored
        yield SendHttp(ResponseProtocolError(number, word, ErrorCode.CANCEL), self.context.client)
        if asked:
            yield DropStream(number)

    def make_server_connection(self) -> layer.CommandGenerator[bool]:
        """Connect, or say in an answer of ours why not."""
        self.flow.metadata[PASSAGE] = self._passage
        connection, error = yield GetHttpConnection(
            (self._target.host, self._target.port), True, None, "tcp"
        )
        if error is None:
            session, passage = self._session, self._passage
            decision = session.gate.leave(session.origin, passage, self._request)
            if not decision.allowed:
                refusal = denial(decision.reason.value, self._asked, self._target)
                yield from self._answer(passage, refusal)
                return False
            self.context.server = self.flow.server_conn = connection
            if connection.peername is not None:
                peer = connection.peername
                self._passage.upstream = str(Authority.of(peer[0], peer[1]))
            return True
        yield from self._answer(self._passage, self._refusal_for(error))
        return False

    def handle_protocol_error(
        self, event: RequestProtocolError | ResponseProtocolError
    ) -> layer.CommandGenerator[None]:
        """Answer for an upstream that gave no answer; mitmproxy's own page names no reason."""
        if isinstance(event, RequestProtocolError):
            # Not left to the error hook: mitmproxy's flow may not know its passage yet.
            self.break_off()
        unanswered = self.server_state == self.state_wait_for_response_headers
        if not isinstance(event, ResponseProtocolError) or not unanswered:
            yield from super().handle_protocol_error(event)
            return
        bad = event.code is ErrorCode.RESPONSE_VALIDATION_FAILED
        word = "upstream-bad-answer" if bad else "upstream-closed"
        self._passage.error = word
        refusal = unreachable(word, sentence(event.message), self._asked, timed_out=False)
        yield from self._answer(self._passage, refusal)

    def break_off(self) -> None:
        """Record that the client gave the stream up, unless its end is recorded already."""
        self._session.gate.end(self._passage, "stream-broken-off")

    def state_errored(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        """Swallow what still comes of a stream that was answered; forget it at its end."""
        if isinstance(event, RequestEndOfMessage):
            yield DropStream(self.stream_id)

    def _request_of(self, message: http.Request) -> Request | None:
        data = message.data
        named = [value for name, value in data.headers.fields if name.lower() == b"host"]
        if len(named) > 1:
            return None
        try:
            hosts = {
                Authority.parse(text, default_port=443) for text in (data.authority, *named) if text
            }
        except ValueError:
            return None
        if len(hosts) != 1:
            return None
        path, _, query = _shown(data.path).partition("?")
        method, fields = _shown(data.method), data.headers.fields
        return Request(Scheme.HTTPS, self._target, hosts.pop(), method, path, query, fields)

    def _refusal_for(self, error: DialError | str) -> Refusal:
        if isinstance(error, DialError):
            if error.decision is not None:
                reason = error.decision.reason.value
                self._passage.error = reason
                return denial(reason, self._asked, self._target)
            self._passage.error = error.failure.value
            timed_out = error.failure is Failure.TIMEOUT
            text = sentence(error.text)
            return unreachable(error.failure.value, text, self._asked, timed_out=timed_out)
        word = "upstream-certificate-invalid" if "verify failed" in error else "upstream-tls-failed"
        self._passage.error = word
        text = f"No TLS connection to {self._target}: {error}."
        return unreachable(word, text, self._asked, timed_out=False)

    def _refuse(
        self, event: RequestHeaders, passage: Attempt, refusal: Refusal
    ) -> layer.CommandGenerator[None]:
        self.flow = http.HTTPFlow(self.context.client, self.context.server)
        self.flow.request = event.request
        self._passage = passage
        yield from self._answer(passage, refusal)

    def _answer(self, passage: Attempt, refusal: Refusal) -> Iterator[commands.Command]:
        passage.status = refusal.status
        self._session.gate.end(passage)
        accept = self.flow.request.headers.get("accept")
        as_json = wants_json(None if accept is None else accept.encode("utf-8", "surrogateescape"))
        body = refusal.body(as_json=as_json)
        fields = [
            (name.lower(), value)
            for name, value in refusal.fields(as_json=as_json, length=len(body))
        ]
        if self.flow.request.method == "HEAD":
            body = b""
        now = time.time()
        answer = http.Response(
            b"HTTP/2.0", refusal.status, b"", http.Headers(fields), None, None, now, now
        )
        client = self.context.client
        asked = self.client_state == self.state_done
        self.client_state = self.server_state = self.state_errored
        yield SendHttp(ResponseHeaders(self.stream_id, answer, not body), client)
        if body:
            yield SendHttp(ResponseData(self.stream_id, body), client)
            yield SendHttp(ResponseEndOfMessage(self.stream_id), client)
        if asked:
            yield DropStream(self.stream_id)  # else once the rest of the request is here


def _problem_of(message: http.Request, *, end_stream: bool) -> str | None:
    """Say what is wrong with a head that must not be forwarded, as `wire` does for HTTP/1.1."""
    data = message.data
    if data.scheme != b"https":
        return "the scheme is not https"
    if not _METHOD(data.method):
        return "the method is malformed"
    if not _PATH(data.path) or (data.path == b"*" and data.method != b"OPTIONS"):
        return "the path is malformed"
    return _problem_of_fields(message, end_stream=end_stream)


def _problem_of_fields(message: http.Request, *, end_stream: bool) -> str | None:
    if any(_CONTROL(value) for _, value in message.headers.fields):
        return "a field holds a control byte"
    try:
        validate_headers(message)
    except ValueError:
        return "a field is malformed"
    if end_stream and message.headers.get("content-length", "0") != "0":
        return "the body is shorter than its length says"  # h2 sees it only if there is a body
    return None


def _shown(sent: bytes) -> str:
    # Not as UTF-8: what is not would become surrogates, which nothing can write down.
    return sent.decode("latin-1")


def without(
    fields: http.Headers, dropped: frozenset[bytes], extra: Iterable[Field] = ()
) -> http.Headers:
    """Return the fields without those named in `dropped`, or spelt like one, and with `extra`."""
    kept = []
    for name, value in fields.fields:
        plain = name.lower()
        if plain not in _FRAMING_ALIASES and plain.replace(b"_", b"-") not in dropped:
            kept.append((name, value))
    # RFC 9113 8.2: names are in lower case.
    kept += [(name.lower(), value) for name, value in extra]
    return http.Headers(kept)
