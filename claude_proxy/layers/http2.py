"""Carries HTTP/2 inside a tunnel through mitmproxy's own layers, each stream judged by the gate.

The judging is in the stream's layer and not in a hook: an answer set in mitmproxy's
`requestheaders` hook waits for the whole body, and here a denial is sent at the head.
"""

import re
import time
from collections.abc import Iterator

from mitmproxy import http
from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HttpLayer,
    HTTPMode,
    HttpStream,
    RequestEndOfMessage,
    RequestHeaders,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    SendHttp,
)
from mitmproxy.proxy.layers.http._base import HttpEvent
from mitmproxy.proxy.layers.http._http2 import Http2Connection

from claude_proxy.authority import Authority
from claude_proxy.denial import Refusal, bad_request, denial, unreachable, wants_json
from claude_proxy.dialer import DialError, Failure
from claude_proxy.events import Phase
from claude_proxy.gate import Passage
from claude_proxy.layers.signals import Expired, HoldReading, Session, Waiting, Withdrawn
from claude_proxy.policy import OVERRIDE_HEADERS, Reason, Request, Scheme

PASSAGE = "claude_proxy.passage"  # the key under which a flow carries its passage

_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}").fullmatch
# Bytes that may wait for a peer's flow-control window before their source is no longer read, and
# how many end the connection.
_BUFFER_LIMIT = 1024 * 1024
_BUFFER_END = 64 * 1024 * 1024

# What the HTTP/1.1 reader takes as a target, less absolute-form: see `wire.http1_request`.
_PATH = re.compile(r"(?:/[\x21\x22\x24-\x7e]*|\*)").fullmatch
_VALUE_BREAKS = re.compile(rb"[\x00\r\n]").search
_PROXY_FIELDS = (b"proxy-authorization", b"proxy-connection", b"proxy-authenticate")


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

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, (Expired, Withdrawn)):
            yield commands.CloseConnection(self.context.client)
            return
        yield from super()._handle_event(event)
        wanted = Waiting.EXCHANGE if self.streams else Waiting.IDLE
        if self._session.waiting is not wanted:
            self._session.wait(wanted)
        yield from self._balance()

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
            held.update(servers)
        elif up > _BUFFER_LIMIT:
            held.add(client)
        for connection in held ^ self._held:
            yield HoldReading(connection, hold=connection in held)
        self._held = held

    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        """Make a stream that asks the gate first."""
        stream = GatedStream(self.context.fork(), stream_id, self._session, self._target)
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())


def _waiting_in(handler: layer.Layer | None) -> int:
    """Return how many bytes an HTTP/2 connection keeps until its peer takes them."""
    while handler is not None and not isinstance(handler, Http2Connection):
        handler = getattr(handler, "child_layer", None)
    if handler is None:
        return 0
    buffers = handler.h2_conn.stream_buffers.values()
    return sum(len(piece.data) for buffer in buffers for piece in buffer)


class GatedStream(HttpStream):
    """One request and its answer on an HTTP/2 connection."""

    def __init__(
        self, context: Context, stream_id: int, session: Session, target: Authority
    ) -> None:
        super().__init__(context, stream_id)
        self._session = session
        self._target = target

    def state_wait_for_request_headers(self, event: RequestHeaders) -> layer.CommandGenerator[None]:
        """Judge the stream's head before mitmproxy does anything with it."""
        session, message = self._session, event.request
        problem = _problem_of(message)
        request = None if problem else self._request_of(message)
        asked = f"{message.method} https://{self._target}{message.path}"
        path = message.path if session.record_query else message.path.partition("?")[0]
        if request is None:
            reason = Reason.BAD_REQUEST
            passage = session.gate.refuse(
                session.origin,
                Phase.REQUEST,
                reason,
                self._target,
                method=message.method,
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
        for name in _PROXY_FIELDS:
            message.headers.pop(name, None)
        if decision.restricted:
            for name in OVERRIDE_HEADERS:
                message.headers.pop(name, None)
        self._passage = passage
        self._asked = asked
        yield from super().state_wait_for_request_headers(event)

    def make_server_connection(self) -> layer.CommandGenerator[bool]:
        """Connect, or say in an answer of ours why not."""
        self.flow.metadata[PASSAGE] = self._passage
        connection, error = yield GetHttpConnection(
            (self._target.host, self._target.port), True, None, "tcp"
        )
        if error is None:
            self.context.server = self.flow.server_conn = connection
            if connection.peername is not None:
                peer = connection.peername
                self._passage.upstream = str(Authority.of(peer[0], peer[1]))
            return True
        yield from self._answer(self._passage, self._refusal_for(error))
        return False

    def state_errored(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        """Swallow what still comes of a stream that was answered; forget it at its end."""
        if isinstance(event, RequestEndOfMessage):
            yield DropStream(self.stream_id)

    def _request_of(self, message: http.Request) -> Request | None:
        authority = message.authority or message.host_header or ""
        try:
            host = Authority.parse(authority, default_port=443)
            named = message.headers.get_all("host")
            if any(Authority.parse(name, default_port=443) != host for name in named):
                return None
        except ValueError:
            return None
        path = message.path.partition("?")[0]
        return Request(Scheme.HTTPS, self._target, host, message.method, path)

    def _refusal_for(self, error: DialError | str) -> Refusal:
        if isinstance(error, DialError):
            if error.decision is not None:
                reason = error.decision.reason.value
                self._passage.error = reason
                return denial(reason, self._asked, self._target)
            self._passage.error = error.failure.value
            timed_out = error.failure is Failure.TIMEOUT
            return unreachable(error.failure.value, error.text, self._asked, timed_out=timed_out)
        word = "upstream-certificate-invalid" if "verify failed" in error else "upstream-tls-failed"
        self._passage.error = word
        text = f"No TLS connection to {self._target}: {error}."
        return unreachable(word, text, self._asked, timed_out=False)

    def _refuse(
        self, event: RequestHeaders, passage: Passage, refusal: Refusal
    ) -> layer.CommandGenerator[None]:
        self.flow = http.HTTPFlow(self.context.client, self.context.server)
        self.flow.request = event.request
        yield from self._answer(passage, refusal)

    def _answer(self, passage: Passage, refusal: Refusal) -> Iterator[commands.Command]:
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
        self.client_state = self.server_state = self.state_errored
        yield SendHttp(ResponseHeaders(self.stream_id, answer, not body), client)
        if body:
            yield SendHttp(ResponseData(self.stream_id, body), client)
            yield SendHttp(ResponseEndOfMessage(self.stream_id), client)


def _problem_of(message: http.Request) -> str | None:
    """Say what is wrong with a head that must not be forwarded, as `wire` does for HTTP/1.1."""
    if message.scheme != "https":
        return "the scheme is not https"
    if not _METHOD(message.method):
        return "the method is malformed"
    if not _PATH(message.path) or (message.path == "*" and message.method != "OPTIONS"):
        return "the path is malformed"
    if any(_VALUE_BREAKS(name) or _VALUE_BREAKS(value) for name, value in message.headers.fields):
        return "a field holds a line break"
    return None
