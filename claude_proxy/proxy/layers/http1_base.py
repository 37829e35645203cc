"""Answers in the proxy's own name on an HTTP/1.1 connection, and ends exchanges and connections.

Laws kept: recorded or denied (7), a fault denies (8). Whatever ends here is recorded with the word
for why; what a client might take for a whole answer is never made up.
"""

from abc import abstractmethod
from collections.abc import Iterable

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from claude_proxy.events import Phase
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.layers.http1_exchange import Exchange
from claude_proxy.proxy.layers.session import Session, Waiting
from claude_proxy.proxy.layers.upstream import UpstreamConnection
from claude_proxy.proxy.responses import (
    Refusal,
    bad_request,
    denial,
    sentence,
    unauthenticated,
    unreachable,
)
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.head import BadMessage, RequestHead


class Http1Replies(layer.Layer):
    """What every lane of HTTP/1.1 has: two peers to write to, and the ways to say no."""

    def __init__(
        self,
        context: Context,
        session: Session,
        *,
        scheme: Scheme,
        target: Authority | None,
    ) -> None:
        super().__init__(context)
        self._session = session
        self._scheme = scheme
        self._target = target
        self._in = bytearray()
        self._answers = bytearray()
        self._exchange: Exchange | None = None
        self._upstream: UpstreamConnection | None = None
        self._relaying = False  # after 101: bytes, not messages
        self._over = False  # the client gets nothing more
        self._todo: list[commands.Command] = []
        self._down: list[bytes] = []  # for the client, until the event is dealt with
        self._up: list[bytes] = []  # for the upstream

    # --- events

    def handle_event(self, event: events.Event) -> Iterable[commands.Command]:  # type: ignore[override]
        """Take an event; return what is to be done, writes to the same peer joined into one.

        Nothing here waits for a reply, so none of the base class's pausing is needed.
        """
        self._on(event)
        self._flush()
        todo, self._todo = self._todo, []
        return todo

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from self.handle_event(event)

    def _send_down(self, data: bytes) -> None:
        if data:
            self._down.append(data)

    def _send_up(self, data: bytes) -> None:
        self._up.append(data)

    def _flush(self) -> None:
        if self._down:
            data = self._down[0] if len(self._down) == 1 else b"".join(self._down)
            self._down.clear()
            self._todo.append(commands.SendData(self.context.client, data))
        if self._up:
            data = self._up[0] if len(self._up) == 1 else b"".join(self._up)
            self._up.clear()
            if self._upstream is not None:
                self._todo.extend(self._upstream.send(data))

    @abstractmethod
    def _on(self, event: events.Event) -> None:
        """Deal with an event; what is to be done about it is gathered."""

    # --- no, and why

    def _not_reached(self, exchange: Exchange, error: DialError | str) -> None:
        if isinstance(error, DialError):
            if error.decision is not None:
                self._exchange = None
                reason = error.decision.reason
                exchange.passage.error = reason.value
                # What was pending of the body is not waited for: the connection is closed.
                self._answer(
                    exchange.head,
                    exchange.passage,
                    denial(reason.value, exchange.asked, exchange.request.target, self._scheme),
                    close=exchange.head.chunked or bool(exchange.head.length),
                )
                return
            timed_out = error.failure is Failure.TIMEOUT
            self._fail(exchange, error.failure.value, error.text, timed_out=timed_out)
            return
        invalid = "verify failed" in error or "mismatch" in error
        reason_word = "upstream-certificate-invalid" if invalid else "upstream-tls-failed"
        text = f"no TLS connection to {exchange.request.target}: {error}"
        self._fail(exchange, reason_word, text)

    def _fail(self, exchange: Exchange, word: str, text: str, *, timed_out: bool = False) -> None:
        """Answer 502 or 504 for an exchange that has no answer yet."""
        exchange.passage.error = word
        refusal = unreachable(word, sentence(text), exchange.asked, timed_out=timed_out)
        self._abandon(exchange, refusal)

    def _bad_answer(self, exchange: Exchange, text: str) -> None:
        if not exchange.begun:
            self._fail(exchange, "upstream-bad-answer", text)
        else:
            self._drop("upstream-bad-answer")

    def _abandon(self, exchange: Exchange, refusal: Refusal) -> None:
        """Give an exchange up: with an answer of ours if there was none, else by closing."""
        if exchange.begun:
            self._drop(exchange.passage.error)
            return
        self._exchange = None
        if self._upstream is not None:
            self._forget(self._upstream)
        close = exchange.body is not None or refusal.status == 400  # noqa: PLR2004
        self._answer(exchange.head, exchange.passage, refusal, close=close)

    def _refuse_message(self, error: BadMessage) -> None:
        """Answer what is not HTTP as it must be, and close: where it ends cannot be known."""
        session = self._session
        passage = session.gate.refuse(
            session.client_info,
            Phase.REQUEST,
            Reason.BAD_REQUEST,
            self._target or "",
            scheme=self._scheme.value,
        )
        self._answer(None, passage, bad_request(error.text, error.status), close=True)

    def _refuse(
        self, head: RequestHead, reason: Reason, asked: str, request: Request | None, text: str = ""
    ) -> None:
        """Deny a request that no rule needs to be asked about."""
        session = self._session
        target: Authority | str = head.authority or (head.host or b"").decode("latin-1")
        if request is not None:
            target = request.target
        stranger = reason is Reason.CLIENT_NOT_AUTHENTICATED
        passage = session.gate.refuse(
            session.client_info,
            Phase.CLIENT if stranger else Phase.REQUEST,
            reason,
            self._target or target,
            method=head.method,
            scheme=self._scheme.value,
            path=head.path,
        )
        if reason is Reason.INVALID_TARGET:
            self._answer(head, passage, bad_request(text), close=True)
        elif stranger:
            # The client may try again on this connection, unless a body is on its way.
            has_body = head.chunked or bool(head.length)
            self._answer(head, passage, unauthenticated(asked), close=has_body)
        else:
            self._deny(head, passage, asked, None)

    def _deny(
        self, head: RequestHead, passage: Attempt, asked: str, target: Authority | None
    ) -> None:
        refusal = denial(passage.decision.reason.value, asked, target, self._scheme)
        has_body = head.chunked or bool(head.length)
        self._answer(head, passage, refusal, close=has_body)

    def _answer(
        self, head: RequestHead | None, passage: Attempt, refusal: Refusal, *, close: bool
    ) -> None:
        """Send an answer of our own and end its passage."""
        close = close or head is None or not head.keep_alive or self._session.closing
        passage.status, out = self._worded(head, refusal, close=close)
        self._session.gate.end(passage)
        self._send_down(out)
        if close:
            self._close_client()
        else:
            self._session.wait(Waiting.IDLE)

    def _worded(
        self, head: RequestHead | None, refusal: Refusal, *, close: bool
    ) -> tuple[int, bytes]:
        """Return the status and the bytes of an answer of our own."""
        accept = None if head is None else head.get(b"accept")
        head_only = head is not None and head.method == "HEAD"
        return refusal.status, refusal.http1(accept=accept, head_only=head_only, close=close)

    def _expired(self) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.held is not None:
            exchange.passage.error = "bad-request-body"
            refusal = Refusal(408, "bad-request", "The request body did not come in time.")
            self._abandon(exchange, refusal)
        elif exchange is not None and not exchange.begun:
            text = "the upstream did not answer in time"
            self._session.closing = True  # the answer says so too
            self._fail(exchange, "upstream-timeout", text, timed_out=True)
        elif exchange is None and self._session.waiting is Waiting.HEAD and self._in:
            text = "the request head did not come in time"
            refusal = Refusal(408, "bad-request", f"{text.capitalize()}.")
            self._send_down(self._worded(None, refusal, close=True)[1])
        self._drop("idle-timeout")

    # --- ends

    def _drop(self, word: str | None) -> None:
        """End the client's connection without another word."""
        exchange = self._exchange
        self._exchange = None
        if exchange is not None:
            self._session.gate.end(exchange.passage, word)
        if self._upstream is not None:
            self._forget(self._upstream)
        self._close_client()

    def _forget(self, upstream: UpstreamConnection) -> None:
        if self._upstream is upstream:
            self._upstream = None
            self._up.clear()
        self._answers.clear()
        self._todo.extend(upstream.close())

    def _close_client(self) -> None:
        if not self._over:
            self._over = True
            self._flush()
            self._todo.append(commands.CloseConnection(self.context.client))
