"""One request and its response on an HTTP/2 connection, from its judged head to its end.

Every exit is gated: what goes upstream was admitted, is judged again when there is a connection for
it, and is built from what was judged. A body waits in the client's window, and the window is opened
again only for bytes that have left, so that an upstream that takes nothing costs one window.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from h2.errors import ErrorCodes

from claude_proxy.policy.request import RawField
from claude_proxy.proxy.dialer import DialError
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.inspection.base import ResponseCutOff
from claude_proxy.proxy.layers.admission import Admission, takes_long
from claude_proxy.proxy.layers.http2_connection import Http2Connection
from claude_proxy.proxy.layers.http2_fields import (
    Http2Request,
    for_client,
    for_trailers,
)
from claude_proxy.proxy.layers.session import RunApart, Session
from claude_proxy.proxy.responses import Refusal, bad_request, wants_json
from claude_proxy.proxy.upstream_errors import (
    CUT_SHORT,
    UpstreamError,
    bad_response,
    closed,
    cut_off,
)
from claude_proxy.wire.http1.head import ResponseHead
from claude_proxy.wire.http1.response import is_bodiless

# RFC 9110 9.2.2: these may be sent again when a kept connection turns out to be dead.
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_INTERIM_LIMIT = 32
_REPLAY = 64 * 1024  # of one stream, of which there are a hundred
_NO_EXPECTATION = frozenset({b"expect"})


class Carrier(Protocol):
    """A connection to an upstream that carries exchanges."""

    @property
    def address(self) -> str | None:
        """The judged address that was dialled."""

    @property
    def takes_rest(self) -> bool:
        """Whether a request may go on after its response is complete."""

    @property
    def may_be_dead(self) -> bool:
        """Whether it was open before there was a request for it, and has answered none yet."""

    def start(self, exchange: "Http2Exchange", *, end: bool) -> None:
        """Send the head of a request; `end`: no body follows."""

    def send(self, exchange: "Http2Exchange", data: bytes) -> None:
        """Send a part of the request's body."""

    def finish(self, exchange: "Http2Exchange", trailers: Sequence[RawField]) -> None:
        """Send the end of the request's body."""

    def delivered(self, exchange: "Http2Exchange", size: int) -> None:
        """Note that the client took `size` bytes of the response."""

    def cancel(self, exchange: "Http2Exchange") -> None:
        """Give the exchange up, as its client wants it no more, or must not have it."""


class Owner(Protocol):
    """The client connection of an exchange."""

    @property
    def session(self) -> Session:
        """The facts of the connection."""

    @property
    def client(self) -> Http2Connection:
        """The frames of the client."""

    def wants_upstream(self, exchange: "Http2Exchange") -> None:
        """Find a connection for an exchange, which may have to wait."""

    def run_apart(self, command: RunApart, then: Callable[[], None]) -> None:
        """Have work done in another thread, and go on by `then`."""

    def ended(self, exchange: "Http2Exchange") -> None:
        """Forget an exchange."""


class Http2Exchange:
    """An allowed request on a stream; it ends by `_end`, exactly once."""

    def __init__(
        self, owner: Owner, number: int, request: Http2Request, admission: Admission
    ) -> None:
        self.number = number
        self.request = request
        self.admission = admission
        self.over = False
        self.request_over = False  # the client has sent all of it
        self.is_retried = False
        self.active = True  # since the last look
        self.idle_looks = 0  # how many in a row found it standing still
        self._owner = owner
        self._carrier: Carrier | None = None
        self._pending: list[bytes] = []  # of the body, while there is no connection for it
        self._trailers: Sequence[RawField] = ()
        self._held: bytearray | None = None
        self._got = 0  # bytes of the body
        self._body_sent = False
        # What was sent of the body, while it might have to be sent again; None: it is not.
        self._replay: list[bytes] | None = None
        self._taken = 0  # bytes of the body that were taken, and for which the client has room
        self._taken_before = 0  # of these, what is sent again
        self._begun = False  # the client has the response's head
        self.answered = False  # the response is complete, the request need not be
        self._left: int | None = None  # bytes of the response's body to come, where that is known
        self._interim = 0

    @property
    def attempt(self) -> Attempt:
        """The recorded decision, and how the exchange went."""
        return self.admission.attempt

    @property
    def holds_body(self) -> bool:
        """Whether a body is being held that is not whole."""
        return self._held is not None

    @property
    def has_begun(self) -> bool:
        """Whether the client has a part of the response."""
        return self._begun

    @property
    def owes_body(self) -> bool:
        """Whether the rest of the body is what everything waits for."""
        return not self.request_over and (self._held is not None or self._carrier is not None)

    @property
    def pending(self) -> int:
        """The bytes of the body that wait for a connection."""
        return sum(map(len, self._pending)) if self._pending else 0

    @property
    def is_waiting(self) -> bool:
        """Whether nothing of it has gone upstream."""
        return self._carrier is None

    # --- the request

    def begin(self, *, end: bool) -> None:
        """Take the head, which was admitted; `end`: no body follows."""
        self.request_over = end
        admission = self.admission
        refusal = admission.check_length(self.request.length or 0)
        if refusal is not None:
            self.refuse(refusal)
        elif admission.body_limit is None:
            self._owner.wants_upstream(self)
        elif end:
            self._judge(b"")
        else:
            self._held = bytearray()
            if (self.request.get(b"expect") or b"").lower() == b"100-continue":
                # The upstream, which would say so, is not asked yet.
                self._owner.client.send_head(self.number, [(b":status", b"100")], end=False)

    def data(self, data: bytes, *, end: bool) -> None:
        """Take a part of the body; `end`: it is the last, and `finish` follows."""
        self.active = True
        self._got += len(data)
        length = self.request.length
        if length is not None and (self._got > length or (end and self._got < length)):
            self._wrong_length()
        elif self._held is not None:
            self._hold(self._held, data)
        elif self._carrier is None:
            self._pending.append(data)
        else:
            self._send(self._carrier, data)

    def _wrong_length(self) -> None:
        longer = self._got > (self.request.length or 0)
        self.attempt.error = "bad-request-body"
        text = f"the body is {'longer' if longer else 'shorter'} than its length says"
        self.refuse(bad_request(text))

    def _hold(self, held: bytearray, data: bytes) -> None:
        refusal = self.admission.hold(len(data), held=len(held))
        if refusal is not None:
            self.refuse(refusal)
            return
        held += data
        self._owner.client.passed_on(self.number, len(data), at_once=True)

    def _send(self, carrier: Carrier, data: bytes) -> None:
        if data:
            self._body_sent = True
            self.attempt.bytes_up += len(data)
            if self._replay is not None:
                self._replay.append(data)
                if self._got > _REPLAY:
                    self._replay = None
            carrier.send(self, data)

    def finish(self, trailers: Sequence[RawField] = ()) -> None:
        """Take the end of the request."""
        self.active = True
        self.request_over = True
        if self._got < (self.request.length or 0):
            self._wrong_length()
            return
        if trailers and self.admission.takes_trailers:
            drop = self.admission.drop
            self._trailers = [
                field for field in trailers if field[0].replace(b"_", b"-") not in drop
            ]
        if self._held is not None:
            self._judge(bytes(self._held))
        elif self._carrier is not None:
            self._carrier.finish(self, self._trailers)
            if self.answered:
                self._end()

    def _judge(self, body: bytes) -> None:
        """Judge a body that is whole, before any of it leaves."""
        self._held = None
        admission = self.admission
        if takes_long(body):
            ahead = RunApart(lambda: admission.judge_ahead(body), len(body))
            self._owner.run_apart(ahead, lambda: self._obey_judgement(body))
        else:
            self._obey_judgement(body)

    def _obey_judgement(self, body: bytes) -> None:
        if self.over:
            return
        refusal = self.admission.judge_body(body)
        if refusal is not None:
            self.refuse(refusal)
            return
        if body:
            self._pending.append(body)
        self.admission.drop |= _NO_EXPECTATION
        self._owner.wants_upstream(self)

    def took(self, size: int, *, at_once: bool) -> None:
        """Note that the upstream took `size` bytes of the body; `at_once`: no others wait."""
        self.active = True
        again = min(size, self._taken_before)
        self._taken_before -= again
        self._taken += size - again
        if size > again:
            self._owner.client.passed_on(self.number, size - again, at_once=at_once)

    # --- the upstream

    def send_on(self, carrier: Carrier) -> None:
        """Send the request on a connection, unless it may not leave any more."""
        refusal = self.admission.recheck()
        if refusal is not None:
            self.refuse(refusal)
            return
        self.active = True
        self._carrier = carrier
        self._replay = [] if carrier.may_be_dead else None
        self.attempt.upstream = carrier.address
        pending, self._pending = self._pending, []
        is_whole = self.request_over and not self._trailers
        carrier.start(self, end=is_whole and not pending)
        for data in pending:
            if not self.over:
                self._send(carrier, data)
        if self.request_over and not self.over and (pending or not is_whole):
            carrier.finish(self, self._trailers)

    def respond(self, head: ResponseHead) -> None:
        """Take the head of the response."""
        self.active = True
        self._guarded(lambda: self._respond(head))

    def _respond(self, head: ResponseHead) -> None:
        owner = self._owner
        self._replay = None
        if head.status >= 200:  # noqa: PLR2004 - a final response
            owner.session.gate.answered(self.attempt, head.status)
        # The phrase comes down with nothing here, but an inspector takes heads as they came.
        self._inspect([*head.fields, (b"", head.phrase)], head.status)
        if head.status < 200:  # noqa: PLR2004
            self._interim += 1
            if self._interim > _INTERIM_LIMIT:
                self.fail(bad_response("the upstream sent interim responses without end"))
            else:
                owner.client.send_head(self.number, for_client(head), end=False)
            return
        bodiless = is_bodiless(head.status, self.request.method)
        self._left = 0 if bodiless else head.length
        self._begun = True
        owner.client.send_head(self.number, for_client(head), end=False)

    def content(self, data: bytes, *, end: bool = False, trailers: Sequence[RawField] = ()) -> None:
        """Take content of the response, and its end."""
        self.active = True
        self._guarded(lambda: self._content(data, end=end, trailers=trailers))

    def _content(self, data: bytes, *, end: bool, trailers: Sequence[RawField]) -> None:
        if not self._begun:
            self.fail(bad_response("the upstream sent content before a response"))
            return
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self.fail(bad_response("the response is longer than its length says"))
                return
            if end and self._left:
                self.fail(CUT_SHORT)
                return
        self.attempt.bytes_down += len(data)
        data = self._inspected(data, end=end)
        trailers = for_trailers(trailers)
        if trailers:
            self._inspect(trailers, 200)
        client = self._owner.client
        client.send(self.number, data, end=end and not trailers)
        if end:
            if trailers:
                client.finish(self.number, trailers)
            self.answered = True
            if self.request_over or self._carrier is None or not self._carrier.takes_rest:
                self._end()

    def _inspected(self, data: bytes, *, end: bool) -> bytes:
        inspector = self.admission.inspector
        if inspector is None:
            return data
        data = inspector.feed(data) if data else b""
        return data + inspector.finish() if end else data

    def _inspect(self, fields: Sequence[RawField], status: int) -> None:
        if (inspector := self.admission.inspector) is not None:
            inspector.head(status, fields)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except ResponseCutOff as cut:
            # What the client has already is not taken back.
            self.fail(cut_off(cut.word))

    def delivered(self, size: int) -> None:
        """Note that the client took `size` bytes of the response."""
        self.active = True
        if self._carrier is not None:
            self._carrier.delivered(self, size)

    # --- ends

    def lost(self, error: UpstreamError, *, untouched: bool) -> None:
        """Send the request again if it may be, once, as its connection or stream is gone; or fail.

        `untouched`: the upstream did nothing with it.
        """
        self._carrier = None
        if self.answered:
            self._end()  # the upstream wants no more of the request
            return
        replay, self._replay = self._replay if untouched else None, None
        again = untouched or self.request.method in _REPEATABLE
        is_whole = replay is not None or not self._body_sent
        if again and is_whole and not (self._begun or self.is_retried or self._interim):
            self.is_retried = True
            if replay:
                self.attempt.bytes_up -= sum(map(len, replay))
                self._pending, self._taken_before = replay, self._taken
            self._owner.wants_upstream(self)
        else:
            self.fail(error)

    def fail(self, error: DialError | UpstreamError | str) -> None:
        """End an exchange whose upstream failed; a plain `str` is a TLS handshake's error."""
        if self.answered:
            self._end()
            return
        if self._begun and isinstance(error, UpstreamError) and error == closed(error.text):
            error = CUT_SHORT
        self.refuse(self.admission.fail(error))

    def refuse(self, refusal: Refusal) -> None:
        """End it by a response of our own, or by a reset if the client has a part of another."""
        if self.over:
            return
        client = self._owner.client
        if self._begun:
            client.reset(self.number, ErrorCodes.INTERNAL_ERROR)
        else:
            self.attempt.status = refusal.status
            answer(client, self.number, refusal, self.request)
        self._end()

    def break_off(self, error: str | None) -> None:
        """End it without a response of our own; `error` is its outcome."""
        if not self.over:
            self._end(error)

    def _end(self, error: str | None = None) -> None:
        self.over = True
        self._pending.clear()
        self._held = None
        carrier, self._carrier = self._carrier, None
        self._owner.session.gate.end(self.attempt, error)
        self._owner.ended(self)
        if carrier is not None:
            carrier.cancel(self)


def answer(client: Http2Connection, number: int, refusal: Refusal, request: object) -> None:
    """Send a response of the proxy's own on a stream."""
    known = request if isinstance(request, Http2Request) else None
    as_json = wants_json(None if known is None else known.get(b"accept"))
    body = refusal.body(as_json=as_json)
    fields = [
        (b":status", b"%d" % refusal.status),
        *(
            (name.lower(), value)
            for name, value in refusal.fields(as_json=as_json, length=len(body))
        ),
    ]
    head_only = known is not None and known.method == "HEAD"
    client.send_head(number, fields, end=head_only)
    if not head_only:
        client.send(number, body, end=True)
