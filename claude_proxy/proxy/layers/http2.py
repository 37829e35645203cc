"""HTTP/2 inside a tunnel, by mitmproxy's own layers: each stream is judged by the gate.

Every exit is gated: the stream's layer judges, not a hook, because a response set in mitmproxy's
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
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import RawField, Request, Scheme
from claude_proxy.proxy.dialer import DialError
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.inspection.base import ResponseCutOff
from claude_proxy.proxy.layers.admission import Admission, Denied, admit
from claude_proxy.proxy.layers.http1_upstream import Http1Upstream
from claude_proxy.proxy.layers.session import PauseReading, RuleRevoked, Session, TimedOut, Waiting
from claude_proxy.proxy.layers.upstream import UpstreamTls
from claude_proxy.proxy.responses import Refusal, bad_request, wants_json
from claude_proxy.proxy.tls_failures import broken_off
from claude_proxy.proxy.upstream_errors import UpstreamError, bad_response, cut_off
from claude_proxy.wire.authority import Authority

ATTEMPT = "claude_proxy.attempt"  # the key under which a flow carries its attempt

_ALPN = (b"h2", b"http/1.1")
# The same shapes as in `wire`, for the bytes as they were sent: mitmproxy decodes them.
_METHOD = re.compile(rb"[A-Z][A-Z0-9_-]{0,31}").fullmatch
# Bytes that may wait for a peer's flow-control window before their source is no longer read, and
# how many end the connection.
_BUFFER_LIMIT = 1024 * 1024
_BUFFER_END = 64 * 1024 * 1024

# What the HTTP/1.1 reader takes as a target, less absolute-form: see `wire.http1.request`.
_PATH = re.compile(rb"(?:/[\x21\x22\x24-\x7e]*|\*)").fullmatch
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_PROXY_FIELDS = frozenset({b"proxy-authorization", b"proxy-connection", b"proxy-authenticate"})
# CGI and its successors read "content_length" as "content-length".
_FRAMING_ALIASES = frozenset({b"content_length", b"transfer_encoding"})


class Http2Lane(HttpLayer):
    """One HTTP/2 connection inside the tunnel to `target`."""

    def __init__(self, context: Context, session: Session, target: Authority) -> None:
        super().__init__(context, HTTPMode.transparent)
        self._session = session
        self._target = target
        # mitmproxy opens upstream connections by these three: the judged target, not the client's.
        context.server.address = (target.host, target.port)
        context.server.tls = True
        context.server.sni = target.host
        self._held: set[Connection] = set()
        self._awaited: GatedStream | None = None  # the stream whose body is waited for

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, (TimedOut, RuleRevoked)):
            yield commands.CloseConnection(self.context.client)
            return
        if isinstance(event, events.ConnectionEvent) and event.connection not in self.connections:
            return  # of a connection that has served its stream
        yield from super()._handle_event(event)
        if self.context.client.state is ConnectionState.CLOSED:
            # A stream that still waits for its upstream gets no event any more.
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
        """Say what is waited for, again for each body: each has the whole time limit."""
        before = self._awaited
        self._awaited = before if self._is_holding(before) else self._oldest_holding()
        wanted = Waiting.EXCHANGE if self.streams else Waiting.IDLE
        if self._awaited is not None:
            wanted = Waiting.BODY
        if self._session.waiting is not wanted or self._awaited is not before:
            self._session.wait(wanted)

    def _oldest_holding(self) -> "GatedStream | None":
        streams = (stream for stream in self.streams.values() if isinstance(stream, GatedStream))
        return next((stream for stream in streams if stream.holds_body), None)

    def _is_holding(self, stream: "GatedStream | None") -> bool:
        return stream is not None and stream.stream_id in self.streams and stream.holds_body

    def _forget_closed(self) -> None:
        """Remove upstream connections that are closed: each HTTP/1.1 one serves one stream."""
        used: set[Connection] = {stream.context.server for stream in self.streams.values()}
        used.update(self.waiting_for_establishment, (self.context.client,))
        for connection in [found for found in self.connections if found not in used]:
            if connection.state is ConnectionState.CLOSED:
                del self.connections[connection]

    def _balance(self) -> layer.CommandGenerator[None]:
        """Stop reading from a peer whose bytes wait here for the other's flow-control window.

        mitmproxy buffers them without limit: a client that reads nothing would fill the memory.
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
            # Only those of the streams that the client does not read: it may be waiting for
            # another stream before it reads them.
            held.update(self._sources_of_waiting().intersection(servers))
        elif up > _BUFFER_LIMIT:
            held.add(client)
        for connection in held ^ self._held:
            yield PauseReading(connection, hold=connection in held)
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
        """Return the connection that all streams share, once it is open, or a new one."""
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
        # The judged target is connected to and verified, not what the client wrote.
        context.server = Server(address=event.address, sni=self._target.host, alpn_offers=_ALPN)
        stack = UpstreamTls(context)
        stack.child_layer = _UpstreamProtocol(context, self._session.head_limit)
        self.connections[context.server] = stack
        self.waiting_for_establishment[context.server].append(event)
        yield from self.event_to_child(stack, events.Start())

    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        """Make a stream that asks the gate first."""
        stream = GatedStream(self.context.fork(), stream_id, self._session, self._target)
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())


class _UpstreamProtocol(HttpClient):
    """Speaks the protocol that the handshake with an upstream settled on (ALPN)."""

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
                self.child_layer = Http1Upstream(self.context, self._head_limit)
            self._handle_event = self.child_layer.handle_event  # type: ignore[method-assign]
            yield from self._handle_event(event)
        yield RegisterHttpConnection(server, error)


def _http2_of(handler: layer.Layer | None) -> Http2Connection | None:
    """Return the HTTP/2 connection that these layers end in, if they do."""
    while handler is not None and not isinstance(handler, Http2Connection):
        handler = getattr(handler, "child_layer", None)
    return handler


def _waiting_in(handler: layer.Layer | None) -> int:
    """Return how many bytes an HTTP/2 connection buffers until its peer takes them."""
    found = _http2_of(handler)
    if found is None:
        return 0
    buffers = found.h2_conn.stream_buffers.values()
    return sum(len(piece.data) for buffer in buffers for piece in buffer)


class GatedStream(HttpStream):
    """One request and its response on an HTTP/2 connection."""

    def __init__(
        self, context: Context, stream_id: int, session: Session, target: Authority
    ) -> None:
        super().__init__(context, stream_id)
        self._session = session
        self._target = target
        self._admission: Admission  # set once the head is allowed
        self._attempt: Attempt  # set with the first event

    def state_wait_for_request_headers(self, event: RequestHeaders) -> layer.CommandGenerator[None]:
        """Judge the stream's head before mitmproxy does anything with it."""
        message = event.request
        problem = _problem_of(message, end_stream=event.end_stream)
        request = None if problem else self._request_of(message)
        if request is None:
            text = problem or "the authority of the request cannot be read"
            yield from self._refuse(event, self._record_unreadable(message), bad_request(text))
            return
        admission = admit(self._session, request, _shown(message.data.path))
        if isinstance(admission, Denied):
            yield from self._refuse(event, admission.attempt, admission.refusal)
            return
        self._admission, self._attempt = admission, admission.attempt
        message.headers = without(message.headers, _PROXY_FIELDS | admission.drop, admission.extra)
        length = int(message.headers.get("content-length", "0"))
        if (refusal := admission.check_length(length)) is not None:
            yield from self._refuse(event, admission.attempt, refusal)
            return
        yield from super().state_wait_for_request_headers(event)

    def _record_unreadable(self, message: http.Request) -> Attempt:
        session, path = self._session, _shown(message.data.path)
        return session.gate.refuse(
            session.client_info,
            Phase.REQUEST,
            Reason.BAD_REQUEST,
            self._target,
            method=_shown(message.data.method),
            scheme="https",
            path=path if session.record_query else path.partition("?")[0],
        )

    @property
    def holds_body(self) -> bool:
        """Whether a body is being held that is not whole."""
        # Equal, not identical: each access to a bound method makes a new object.
        return bool(self.client_state == self.state_consume_request_body)

    def start_request_stream(self) -> layer.CommandGenerator[None]:
        """Let the body leave as it comes, unless it is to be judged first."""
        if self._admission.body_limit is None:
            yield from super().start_request_stream()
        else:
            self.client_state = self.state_consume_request_body

    def state_stream_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Pass the body on as it comes, without trailers that could hold a credential."""
        if not self._drops(event):
            yield from super().state_stream_request_body(event)

    def _drops(self, event: events.Event) -> bool:
        return isinstance(event, RequestTrailers) and not self._admission.takes_trailers

    def state_consume_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Hold the body until it is whole, and judge it before any of it leaves."""
        if self._drops(event):
            return
        admission, refusal = self._admission, None
        if isinstance(event, RequestData):
            refusal = admission.hold(len(event.data), held=len(self.request_body_buf))
        elif isinstance(event, RequestEndOfMessage):
            refusal = self._judge_body()
            if refusal is not None:
                self.client_state = self.state_done
        if refusal is not None:
            self.request_body_buf.clear()
            yield from self._answer(self._attempt, refusal)
            return
        yield from super().state_consume_request_body(event)

    def _judge_body(self) -> Refusal | None:
        """Return why the body that is whole now may not leave, if it may not."""
        if self._admission.body_limit is None:
            return None
        body = bytes(self.request_body_buf)
        refusal = self._admission.judge_body(body)
        if refusal is None:
            self._attempt.bytes_up += len(body)
        return refusal

    def state_wait_for_response_headers(
        self, event: ResponseHeaders
    ) -> layer.CommandGenerator[None]:
        """Have the response's head inspected before any of it goes down."""
        try:
            self._inspect(event.response.headers, event.response.status_code)
        except ResponseCutOff as cut:
            yield from self._cut(cut.word)
            return
        yield from super().state_wait_for_response_headers(event)

    def state_stream_response_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Have the response's content inspected as it goes down."""
        inspector = self._admission.inspector
        if inspector is None:
            yield from super().state_stream_response_body(event)
            return
        try:
            if isinstance(event, ResponseData):
                event = ResponseData(self.stream_id, inspector.feed(event.data))
            elif isinstance(event, ResponseTrailers):
                self._inspect(event.trailers, 200)
            elif isinstance(event, ResponseEndOfMessage) and (rest := inspector.finish()):
                yield from super().state_stream_response_body(ResponseData(self.stream_id, rest))
        except ResponseCutOff as cut:
            yield from self._cut(cut.word)
            return
        if not isinstance(event, ResponseData) or event.data:
            yield from super().state_stream_response_body(event)

    def _inspect(self, fields: http.Headers, status: int) -> None:
        if (inspector := self._admission.inspector) is not None:
            inspector.head(status, fields.fields)

    def _cut(self, word: str) -> layer.CommandGenerator[None]:
        """End a response that the client must not have; what it has already is not taken back."""
        number = self.stream_id
        unanswered = self.server_state == self.state_wait_for_response_headers
        cancelled = RequestProtocolError(number, word, ErrorCode.CANCEL)
        yield SendHttp(cancelled, self.context.server)
        if unanswered:
            yield from self._fail(cut_off(word))
            return
        self._session.gate.end(self._attempt, word)
        is_whole = self.client_state == self.state_done
        self.client_state = self.server_state = self.state_errored
        yield SendHttp(ResponseProtocolError(number, word, ErrorCode.CANCEL), self.context.client)
        if is_whole:
            yield DropStream(number)

    def make_server_connection(self) -> layer.CommandGenerator[bool]:
        """Connect, or respond with the reason why not."""
        self.flow.metadata[ATTEMPT] = self._attempt
        connection, error = yield GetHttpConnection(
            (self._target.host, self._target.port), True, None, "tcp"
        )
        if error is not None:
            yield from self._fail(error)
            return False
        if (refusal := self._admission.recheck()) is not None:
            yield from self._answer(self._attempt, refusal)
            return False
        self.context.server = self.flow.server_conn = connection
        if connection.peername is not None:
            peer = connection.peername
            self._attempt.upstream = str(Authority.of(peer[0], peer[1]))
        return True

    def _fail(self, error: DialError | UpstreamError | str) -> layer.CommandGenerator[None]:
        yield from self._answer(self._attempt, self._admission.fail(error))

    def handle_protocol_error(
        self, event: RequestProtocolError | ResponseProtocolError
    ) -> layer.CommandGenerator[None]:
        """Respond for an upstream that did not; mitmproxy's own page names no reason."""
        if isinstance(event, RequestProtocolError):
            # Not left to the error hook: mitmproxy's flow may not have its attempt yet.
            self.break_off()
        unanswered = self.server_state == self.state_wait_for_response_headers
        if not isinstance(event, ResponseProtocolError) or not unanswered:
            yield from super().handle_protocol_error(event)
            return
        bad = event.code is ErrorCode.RESPONSE_VALIDATION_FAILED
        error = bad_response(event.message)
        if not bad:
            error = broken_off(self.context.server.error, self._target, event.message)
        yield from self._fail(error)

    def break_off(self) -> None:
        """Record that the client reset the stream, unless its end is recorded already."""
        self._session.gate.end(self._attempt, "stream-broken-off")

    def state_errored(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        """Discard what still comes of a stream that was answered; drop it at its end."""
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

    def _refuse(
        self, event: RequestHeaders, attempt: Attempt, refusal: Refusal
    ) -> layer.CommandGenerator[None]:
        self.flow = http.HTTPFlow(self.context.client, self.context.server)
        self.flow.request = event.request
        self._attempt = attempt
        yield from self._answer(attempt, refusal)

    def _answer(self, attempt: Attempt, refusal: Refusal) -> Iterator[commands.Command]:
        attempt.status = refusal.status
        self._session.gate.end(attempt)
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
        response = http.Response(
            b"HTTP/2.0", refusal.status, b"", http.Headers(fields), None, None, now, now
        )
        client = self.context.client
        is_whole = self.client_state == self.state_done
        self.client_state = self.server_state = self.state_errored
        yield SendHttp(ResponseHeaders(self.stream_id, response, not body), client)
        if body:
            yield SendHttp(ResponseData(self.stream_id, body), client)
            yield SendHttp(ResponseEndOfMessage(self.stream_id), client)
        if is_whole:
            yield DropStream(self.stream_id)  # else once the rest of the request is here


def _problem_of(message: http.Request, *, end_stream: bool) -> str | None:
    """Say what is wrong with a head that must not be forwarded, as `wire` does on HTTP/1.1."""
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
    # Not as UTF-8: invalid bytes would become surrogates, which cannot be encoded again.
    return sent.decode("latin-1")


def without(
    fields: http.Headers, dropped: frozenset[bytes], extra: Iterable[RawField] = ()
) -> http.Headers:
    """Return the fields without those in `dropped` or their aliases, and with `extra`."""
    kept = []
    for name, value in fields.fields:
        plain = name.lower()
        if plain not in _FRAMING_ALIASES and plain.replace(b"_", b"-") not in dropped:
            kept.append((name, value))
    # RFC 9113 8.2: names are in lower case.
    kept += [(name.lower(), value) for name, value in extra]
    return http.Headers(kept)
