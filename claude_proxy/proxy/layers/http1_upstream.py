"""An upstream connection of HTTP/1.1 that carries the streams of an HTTP/2 client, one by one.

Every exit is gated: a body without a length gets chunks and one with a length keeps to it, so that
no part of it can be taken for a second request, which was not judged. Responses are read as
strictly as the HTTP/1.1 lane reads them.
"""

from collections.abc import Sequence
from typing import Protocol

from claude_proxy.policy.request import RawField
from claude_proxy.proxy.layers.http2_exchange import Http2Exchange
from claude_proxy.proxy.layers.http2_fields import for_http1_origin
from claude_proxy.proxy.upstream_errors import CUT_SHORT, UpstreamError, bad_response
from claude_proxy.wire.http1.body import LAST_CHUNK, Body, body_of_response, chunk
from claude_proxy.wire.http1.emit import emit_request_head
from claude_proxy.wire.http1.head import BadMessage, ResponseHead
from claude_proxy.wire.http1.response import read_response_head

# Bytes of a response that may wait for the client's window before the upstream is no longer read.
_UNDELIVERED = 256 * 1024


class Http1Owner(Protocol):
    """What a connection to an origin needs of those that use it."""

    @property
    def address(self) -> str | None:
        """The judged address that was dialled."""

    @property
    def ended_well(self) -> bool:
        """Whether it ended without a reset, so that its end may be that of a body."""

    @property
    def failure(self) -> UpstreamError:
        """Why it ended, where no response had come."""

    @property
    def is_untouched(self) -> bool:
        """Whether nothing of a request had reached the origin's machine when it ended."""

    def write(self, data: bytes) -> None:
        """Send bytes to the origin."""

    def hold(self, *, hold: bool) -> None:
        """Stop or resume reading from the origin."""

    def answered(self, exchange: Http2Exchange, head: ResponseHead) -> None:
        """Take note of the first response."""

    def room_changed(self) -> None:
        """Look again which exchanges it may take."""

    def broken(self) -> None:
        """Close the connection, which has no exchange any more."""


class Http1Upstream:
    """The inner end of a connection to an origin of HTTP/1.1."""

    def __init__(self, owner: Http1Owner, head_limit: int, *, is_warm: bool = False) -> None:
        self._owner = owner
        self._head_limit = head_limit
        self._exchange: Http2Exchange | None = None
        self._served = 0
        self._is_warm = is_warm  # it has waited, so it may have died meanwhile
        self._chunked = False  # the request's body
        self._in = bytearray()
        self._response: ResponseHead | None = None
        self._body: Body | None = None  # of the response
        self._undelivered = 0
        self._holds = False
        self._over = False

    @property
    def address(self) -> str | None:
        """The judged address that was dialled."""
        return self._owner.address

    @property
    def takes_rest(self) -> bool:
        """Whether a request may go on after its response: not here (RFC 9112 section 9.5)."""
        return False

    @property
    def may_be_dead(self) -> bool:
        """Whether it was open before there was a request for it, and has answered none yet."""
        return self._is_warm and self._served == 0

    @property
    def has_room(self) -> bool:
        """Whether an exchange may start now."""
        return self._exchange is None and not self._over

    @property
    def is_idle(self) -> bool:
        """Whether it carries nothing."""
        return self._exchange is None

    # --- the request

    def start(self, exchange: Http2Exchange, *, end: bool) -> None:
        """Send the head of a request, with our own framing."""
        admission = exchange.admission
        head = for_http1_origin(exchange.request, admission.drop, admission.extra, body=not end)
        self._exchange = exchange
        self._served += 1
        self._chunked = head.chunked
        self._owner.write(emit_request_head(head, head.target))

    def send(self, exchange: Http2Exchange, data: bytes) -> None:
        """Send a part of the body; the exchange keeps it to its length."""
        self._owner.write(chunk(data) if self._chunked else data)
        exchange.took(len(data), at_once=True)

    def finish(self, exchange: Http2Exchange, trailers: Sequence[RawField]) -> None:  # noqa: ARG002 - a body with Content-Length cannot have trailers
        """End the body."""
        if self._chunked:
            self._owner.write(LAST_CHUNK)

    def delivered(self, exchange: Http2Exchange, size: int) -> None:
        """Read on once the client has taken enough."""
        if exchange is self._exchange:
            self._undelivered -= min(size, self._undelivered)
            self._hold_if_needed()

    def cancel(self, exchange: Http2Exchange) -> None:
        """Close the connection: what still comes would be taken for the next response."""
        if exchange is self._exchange:
            self._exchange = None
            self._close()

    # --- the response

    def feed(self, data: bytes) -> None:
        """Take bytes of the origin."""
        exchange = self._exchange
        if exchange is None:
            self._close()  # unasked, they could be made to answer the next request
            return
        self._in += data
        try:
            if self._response is None and not self._read_heads(exchange):
                return
            self._read_body(exchange)
        except BadMessage as error:
            self._fail(exchange, bad_response(error.text))

    def _read_heads(self, exchange: Http2Exchange) -> bool:
        """Read heads; tell whether the final one has come, and the exchange goes on."""
        method = exchange.request.method
        while True:
            head = read_response_head(self._in, self._head_limit, method=method)
            if head is None:
                return False
            if head.status == 101:  # noqa: PLR2004 - Switching Protocols
                raise BadMessage(502, "the upstream switched to what was not asked for")
            if head.status >= 200:  # noqa: PLR2004 - a final response
                self._response, self._body = head, body_of_response(head, method)
                if self._served == 1:
                    self._owner.answered(exchange, head)
            exchange.respond(head)
            if exchange.over:
                return False
            if self._response is not None:
                return True

    def _read_body(self, exchange: Http2Exchange) -> None:
        body = self._body
        if body is None:
            self._complete(exchange, b"", (), rest=bytes(self._in))
            return
        data = bytes(self._in)
        self._in.clear()
        content, done, rest = body.feed(data)
        if done:
            self._complete(exchange, content, body.trailers, rest=rest)
        elif content:
            self._undelivered += len(content)
            exchange.content(content)
            self._hold_if_needed()

    def _complete(
        self, exchange: Http2Exchange, content: bytes, trailers: Sequence[RawField], *, rest: bytes
    ) -> None:
        """Pass on the end of the response, and keep the connection if it may serve again."""
        head, self._exchange = self._response, None
        keeps = head is not None and head.keep_alive and exchange.request_over and not rest
        self._in.clear()
        self._response = self._body = None
        self._undelivered = 0
        self._hold_if_needed()
        exchange.content(content, end=True, trailers=trailers)
        if keeps:
            self._owner.room_changed()
        else:
            self._close()

    def _hold_if_needed(self) -> None:
        hold = self._undelivered > _UNDELIVERED
        if hold is not self._holds and not self._over:
            self._holds = hold
            self._owner.hold(hold=hold)

    # --- ends

    def ended(self) -> None:
        """Take the end of the connection."""
        exchange, response, body = self._exchange, self._response, self._body
        if exchange is None:
            self._close()
        elif response is None:
            self._exchange = None
            self._close()
            # A kept connection may have died before the request reached the origin.
            if (self._served > 1 or self._is_warm) and not self._in:
                untouched = self._served == 1 and self._owner.is_untouched
                exchange.lost(self._owner.failure, untouched=untouched)
            else:
                exchange.fail(self._owner.failure)
        elif body is not None and body.eof() and self._owner.ended_well:
            self._exchange = None
            exchange.content(b"", end=True)
            self._close()
        else:
            self._fail(exchange, CUT_SHORT)

    def fail_all(self, error: UpstreamError) -> None:
        """End what it carries, and the connection."""
        if self._exchange is not None:
            self._fail(self._exchange, error)
        else:
            self._close()

    def _fail(self, exchange: Http2Exchange, error: UpstreamError) -> None:
        self._exchange = None
        self._close()
        exchange.fail(error)

    def _close(self) -> None:
        if not self._over:
            self._over = True
            self._owner.broken()
