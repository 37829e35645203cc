"""An upstream connection of HTTP/2, which carries all streams of one client at once.

The origin's limit of concurrent streams is honoured; what an origin sends is read as strictly as
from one of HTTP/1.1, and what is malformed concerns its stream alone.
"""

from collections.abc import Sequence
from typing import Protocol

from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from claude_proxy.policy.request import RawField
from claude_proxy.proxy.layers.http2_connection import GoAway, Http2Connection
from claude_proxy.proxy.layers.http2_exchange import Http2Exchange
from claude_proxy.proxy.layers.http2_fields import (
    for_http2_origin,
    read_response,
    read_trailers,
    reset_text,
)
from claude_proxy.proxy.layers.http2_frames import Http2Error
from claude_proxy.proxy.layers.http2_windows import WindowBudget
from claude_proxy.proxy.upstream_errors import UpstreamError, bad_response, closed
from claude_proxy.wire.http1.head import BadMessage, ResponseHead

_HELD_BACK = 16 * 1024


class OriginOwner(Protocol):
    """What a connection to an origin needs of those that use it."""

    @property
    def address(self) -> str | None:
        """The judged address that was dialled."""

    @property
    def failure(self) -> UpstreamError:
        """Why it ended, where no response had come."""

    @property
    def is_untouched(self) -> bool:
        """Whether nothing of a request had reached the origin's machine when it ended."""

    def answered(self, exchange: Http2Exchange, head: ResponseHead) -> None:
        """Take note of the first response."""

    def touched(self) -> None:
        """Send what is to be sent, before this turn ends."""

    def room_changed(self) -> None:
        """Look again which exchanges it may take."""

    def broken(self) -> None:
        """Close the connection, which has no exchange any more."""


class Http2Origin:
    """The inner end of a connection to an origin of HTTP/2."""

    def __init__(
        self, owner: OriginOwner, head_limit: int, budget: WindowBudget, *, is_warm: bool = False
    ) -> None:
        self._owner = owner
        self.connection = Http2Connection(
            client_side=True, head_limit=head_limit, budget=budget, taken=self._taken
        )
        self._exchanges: dict[int, Http2Exchange] = {}
        self._numbers: dict[Http2Exchange, int] = {}
        # Bytes of a response that the client has not taken yet, by stream.
        self._undelivered: dict[int, int] = {}
        self._has_served = False
        self._has_answered = False  # in full, not by an interim response
        self._is_warm = is_warm  # it has waited, so it may have died meanwhile
        self.is_draining = False  # the origin takes no further stream

    @property
    def address(self) -> str | None:
        """The judged address that was dialled."""
        return self._owner.address

    @property
    def takes_rest(self) -> bool:
        """Whether a request may go on after its response: until the origin resets the stream."""
        return True

    @property
    def may_be_dead(self) -> bool:
        """Whether it was open before there was a request for it, and has answered none yet."""
        return self._is_warm and not self._has_served

    @property
    def has_room(self) -> bool:
        """Whether a further exchange may start now."""
        room = len(self._exchanges) < self.connection.peer_max_streams
        return room and not self.is_draining and not self.connection.over

    @property
    def is_idle(self) -> bool:
        """Whether it carries nothing."""
        return not self._exchanges

    # --- requests

    def start(self, exchange: Http2Exchange, *, end: bool) -> None:
        """Open a stream for an exchange by its head."""
        admission = exchange.admission
        fields = for_http2_origin(exchange.request, admission.drop, admission.extra)
        number = self.connection.open(fields, end=end)
        self._exchanges[number] = exchange
        self._numbers[exchange] = number
        self._undelivered[number] = 0
        self._owner.touched()

    def send(self, exchange: Http2Exchange, data: bytes) -> None:
        """Send a part of the body, as far as the origin's window allows."""
        self.connection.send(self._numbers[exchange], data)
        self._owner.touched()

    def finish(self, exchange: Http2Exchange, trailers: Sequence[RawField]) -> None:
        """End the body."""
        self.connection.finish(self._numbers[exchange], trailers)
        self._owner.touched()

    def delivered(self, exchange: Http2Exchange, size: int) -> None:
        """Let the origin send as much again as the client has taken."""
        number = self._numbers.get(exchange)
        if number is None:
            return
        size = min(size, self._undelivered[number])
        self._undelivered[number] -= size
        # An inspector may hold some bytes back until the next come.
        at_once = self._undelivered[number] < _HELD_BACK
        self.connection.passed_on(number, size, at_once=at_once)
        self._owner.touched()

    def cancel(self, exchange: Http2Exchange) -> None:
        """Reset the stream of an exchange, unless both ends are through with it."""
        number = self._forget(exchange)
        if number is not None:
            if not self.connection.is_ending(number):
                self.connection.reset(number, ErrorCodes.CANCEL)
            self._look_on()

    def _taken(self, number: int, size: int) -> None:
        if (exchange := self._exchanges.get(number)) is not None:
            exchange.took(size, at_once=not self.connection.queued(number))

    # --- what the origin sends

    def feed(self, data: bytes) -> None:
        """Take bytes of the origin; `step` works them off."""
        self.connection.feed(data)

    def step(self) -> bool:
        """Work off one frame; tell whether there was one."""
        if self.connection.over:
            return False
        try:
            several = self.connection.next()
            for event in several or ():
                self._on(event)
        except Http2Error as error:
            self.connection.end(error.code)
            self._lose_all(bad_response(error.text))
            return False
        return several is not None

    def _on(self, event: Event | GoAway) -> None:
        if isinstance(event, GoAway):
            self._goes_away(event)
            return
        exchange = self._exchanges.get(getattr(event, "stream_id", None) or 0)
        if exchange is None:
            self._owner.room_changed()  # by settings, or the end of a stream
            return
        try:
            self._on_stream(exchange, event)
        except BadMessage as error:
            exchange.fail(bad_response(error.text))

    def _on_stream(self, exchange: Http2Exchange, event: Event) -> None:
        match event:
            case ResponseReceived() | InformationalResponseReceived():
                head = read_response(event.headers or (), method=exchange.request.method)
                self._has_served = True
                if not self._has_answered and isinstance(event, ResponseReceived):
                    self._has_answered = True
                    self._owner.answered(exchange, head)
                exchange.respond(head)
            case DataReceived():
                self._content(exchange, event)
            case TrailersReceived():
                exchange.content(b"", end=True, trailers=read_trailers(event.headers or (), 502))
            case StreamEnded():
                exchange.content(b"", end=True)
            case StreamReset():
                self._reset(exchange, event)

    def _content(self, exchange: Http2Exchange, event: DataReceived) -> None:
        number, data = event.stream_id, bytes(event.data or b"")
        padding = (event.flow_controlled_length or 0) - len(data)
        if padding:
            self.connection.passed_on(number, padding, at_once=False)
        self._undelivered[number] += len(data)
        exchange.content(data, end=event.stream_ended is not None)

    def _reset(self, exchange: Http2Exchange, event: StreamReset) -> None:
        self._forget(exchange)
        code = event.error_code
        if not event.remote_reset:
            error = bad_response("the upstream broke the rules of HTTP/2 flow control")
        else:
            error = closed(f"the upstream reset the stream ({reset_text(code or 0)})")
        exchange.lost(error, untouched=code == ErrorCodes.REFUSED_STREAM)
        self._look_on()

    def _goes_away(self, event: GoAway) -> None:
        """RFC 9113 section 6.8: streams above the last one were not worked on."""
        self.is_draining = True
        text = f"the upstream closed the connection (GOAWAY, {reset_text(event.code)})"
        for number in [number for number in self._exchanges if number > event.last_stream]:
            exchange = self._exchanges[number]
            self._forget(exchange)
            exchange.lost(closed(text), untouched=True)
        self._look_on()

    def ended(self) -> None:
        """Take the end of the connection."""
        self.is_draining = True
        self._lose_all(self._owner.failure)

    def fail_all(self, error: UpstreamError) -> None:
        """End everything that it carries, and the connection."""
        self.connection.end(ErrorCodes.NO_ERROR)
        for exchange in list(self._numbers):
            self._forget(exchange)
            exchange.fail(error)
        self._owner.broken()

    def _lose_all(self, error: UpstreamError) -> None:
        for exchange in list(self._numbers):
            self._forget(exchange)
            # A kept connection may have died before the request reached the origin.
            if self._has_served or self._is_warm:
                untouched = self.may_be_dead and self._owner.is_untouched
                exchange.lost(error, untouched=untouched)
            else:
                exchange.fail(error)
        self._owner.broken()

    def _forget(self, exchange: Http2Exchange) -> int | None:
        number = self._numbers.pop(exchange, None)
        if number is not None:
            del self._exchanges[number], self._undelivered[number]
        return number

    def _look_on(self) -> None:
        if self.is_draining and not self._exchanges:
            self._owner.broken()
        else:
            self._owner.room_changed()
