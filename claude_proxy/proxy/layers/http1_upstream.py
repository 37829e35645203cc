"""HTTP/1.1 upstream of an HTTP/2 stream: the stream's events in, strict HTTP/1.1 out, and back.

Every exit is gated: a body without a length gets chunks and one with a length keeps to it, so that
no part of it can be taken for a second request, which was not judged (mitmproxy's own client writes
it raw). Responses are read as strictly as the HTTP/1.1 lane reads them. A connection serves one
stream.
"""

import time

from mitmproxy import http
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._base import HttpConnection, ReceiveHttp

from claude_proxy.wire.http1.body import LAST_CHUNK, Body, body_of_response, chunk
from claude_proxy.wire.http1.emit import emit_request_head, end_to_end_fields
from claude_proxy.wire.http1.head import BadMessage, RequestHead, ResponseHead, TargetForm
from claude_proxy.wire.http1.response import read_response_head

INTERIM_LIMIT = 32
# RFC 9110 8.6: without content these say so, because some servers wait for it otherwise.
_WITH_CONTENT = frozenset({"POST", "PUT", "PATCH"})

type _Commands = layer.CommandGenerator[None]


class Http1Upstream(HttpConnection):
    """The inner end of an upstream connection that serves one stream."""

    def __init__(self, context: Context, head_limit: int) -> None:
        super().__init__(context, context.server)
        self._head_limit = head_limit
        self._stream_id = 0
        self._method = ""
        self._left: int | None = None  # bytes of the request's body to come; None: in chunks
        self._in = bytearray()
        self._interim = 0
        self._response: ResponseHead | None = None
        self._body: Body | None = None  # of the response
        self._over = False

    def _handle_event(self, event: events.Event) -> _Commands:
        if self._over:
            return
        if isinstance(event, RequestHeaders):
            yield from self._send_head(event)
        elif isinstance(event, RequestData):
            yield from self._send_data(event.data)
        elif isinstance(event, RequestEndOfMessage):
            yield from self._end_request()
        elif isinstance(event, RequestProtocolError):
            yield from self._close()
        elif isinstance(event, events.DataReceived):
            self._in += event.data
            yield from self._read()
        elif isinstance(event, events.ConnectionClosed):
            yield from self._ended()

    # --- the request

    def _send_head(self, event: RequestHeaders) -> _Commands:
        message = event.request
        head = head_of(message, end_stream=event.end_stream)
        self._stream_id, self._method = event.stream_id, head.method
        self._left = None if head.chunked else head.length or 0
        yield commands.SendData(self.conn, emit_request_head(head, head.target))

    def _send_data(self, data: bytes) -> _Commands:
        if self._left is None:
            data = chunk(data)
        elif len(data) > self._left:
            yield from self._fail("the body is longer than its length says")
            return
        else:
            self._left -= len(data)
        if data:
            yield commands.SendData(self.conn, data)

    def _end_request(self) -> _Commands:
        if self._left is None:
            yield commands.SendData(self.conn, LAST_CHUNK)
        elif self._left:
            yield from self._fail("the body is shorter than its length says")

    # --- the response

    def _read(self) -> _Commands:
        try:
            head = self._response or self._read_head()
        except BadMessage as error:
            yield from self._fail(error.text)
            return
        if head is None:
            return
        if self._response is None:
            self._response, self._body = head, body_of_response(head, self._method)
            response = response_of(head)
            yield ReceiveHttp(ResponseHeaders(self._stream_id, response, self._body is None))
        if self._body is None:
            yield from self._complete()
            return
        yield from self._read_body(self._body)

    def _read_head(self) -> ResponseHead | None:
        """Return the final response's head; mitmproxy's HTTP/2 has no use for interim ones."""
        while True:
            head = read_response_head(self._in, self._head_limit, method=self._method)
            if head is None or head.status >= 200:  # noqa: PLR2004 - a final response
                return head
            self._interim += 1
            if head.status == 101:  # noqa: PLR2004 - Switching Protocols
                raise BadMessage(502, "the upstream switched to what was not asked for")
            if self._interim > INTERIM_LIMIT:
                raise BadMessage(502, "the upstream sent interim responses without end")

    def _read_body(self, body: Body) -> _Commands:
        data = bytes(self._in)
        self._in.clear()
        try:
            content, done, _ = body.feed(data)
        except BadMessage as error:
            yield from self._fail(error.text)
            return
        if content:
            yield ReceiveHttp(ResponseData(self._stream_id, content))
        if done:
            if body.trailers:
                trailers = http.Headers(body.trailers)
                yield ReceiveHttp(ResponseTrailers(self._stream_id, trailers))
            yield from self._complete()

    def _complete(self) -> _Commands:
        yield from self._close()
        yield ReceiveHttp(ResponseEndOfMessage(self._stream_id))

    # --- ends

    def _ended(self) -> _Commands:
        body = self._body
        if body is not None and body.eof() and self.conn.error is None:
            yield from self._complete()
        elif self._response is None:
            text = "the upstream closed the connection without a response"
            yield from self._fail(text, ErrorCode.GENERIC_SERVER_ERROR)
        else:
            yield from self._fail("the response was cut short")

    def _fail(self, text: str, code: ErrorCode = ErrorCode.RESPONSE_VALIDATION_FAILED) -> _Commands:
        yield from self._close()
        yield ReceiveHttp(ResponseProtocolError(self._stream_id, text, code))

    def _close(self) -> _Commands:
        self._over = True
        yield commands.CloseConnection(self.conn)


def head_of(message: http.Request, *, end_stream: bool) -> RequestHead:
    """Return an HTTP/2 request's head as one of HTTP/1.1, with our own framing."""
    fields: list[tuple[bytes, bytes]] = []
    host, length, cookies = message.data.authority, None, list[bytes]()
    for name, value in message.headers.fields:
        match name.lower():
            case b"host":
                host = host or value
            case b"content-length":
                length = int(value)
            case b"cookie":
                cookies.append(value)
            case _:
                fields.append((name, value))
    if cookies:
        # RFC 9113 8.2.3: HTTP/2 may send a cookie's pairs apart, HTTP/1.1 must not.
        fields.append((b"cookie", b"; ".join(cookies)))
    method = message.data.method.decode("ascii")
    if length is None and end_stream and method in _WITH_CONTENT:
        length = 0
    return RequestHead(
        method=method,
        target=message.data.path.decode("ascii"),
        form=TargetForm.ORIGIN,
        minor=1,
        fields=fields,
        host=host,
        length=length,
        chunked=length is None and not end_stream,
    )


def response_of(head: ResponseHead) -> http.Response:
    """Return a response's head as mitmproxy's own type, without the fields of this hop."""
    fields = http.Headers(end_to_end_fields(head))
    now = time.time()
    return http.Response(b"HTTP/1.1", head.status, head.phrase, fields, None, None, now, None)
