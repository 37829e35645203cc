"""TLS passthrough: a tunnel whose TLS is not intercepted, because its rule says so.

Law kept: agreement. After a HelloRetryRequest the client sends a second ClientHello (RFC 8446,
section 4.1.2), whose server name is checked as well.
"""

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from claude_proxy.policy.reason import Reason
from claude_proxy.policy.rules import Tls
from claude_proxy.proxy.dialer import DialError
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.layers.session import (
    SHED,
    Commands,
    PauseReading,
    RuleRevoked,
    Session,
    TimedOut,
    Waiting,
)
from claude_proxy.proxy.layers.upstream import UpstreamConnection, UpstreamEnded, UpstreamOpened
from claude_proxy.proxy.upstream_errors import UpstreamError
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.client_hello import (
    HelloReader,
    HelloUnreadableError,
    is_retry_request,
    skip_change_cipher_spec,
)


class Passthrough(layer.Layer):
    """A tunnel whose bytes are only copied; `early` is the ClientHello that was judged."""

    def __init__(
        self, context: Context, session: Session, target: Authority, attempt: Attempt, early: bytes
    ) -> None:
        super().__init__(context)
        self._session = session
        self._target = target
        self._attempt = attempt
        self._waiting = bytearray(early)  # from the client, until the upstream is open
        self._upstream = UpstreamConnection(target, tls=None, tunnel=True)
        self._first_bytes = bytearray()  # of the upstream, until their type is known
        self._inspects_first_bytes = True
        self._second_hello: HelloReader | None = None

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            self._session.passthrough = True
            self._session.wait(Waiting.UPSTREAM)
            yield PauseReading(self.context.client, hold=True)
            yield from self._upstream.open()
        elif isinstance(event, events.ConnectionEvent):
            if event.connection is not self.context.client:
                yield from self._upstream.handle(event)
            elif isinstance(event, events.DataReceived):
                yield from self._up(event.data)
            else:
                yield from self._client_closed()
        elif isinstance(event, events.CommandCompleted):
            yield from self._upstream.handle(event)
        elif isinstance(event, (TimedOut, RuleRevoked)):
            outcome = "idle-timeout" if isinstance(event, TimedOut) else Reason.RULE_WITHDRAWN.value
            yield from self._close(outcome)
        yield from self._read_inbox()

    def _read_inbox(self) -> Commands:
        inbox = self._upstream.inbox
        while inbox:
            event = inbox.popleft()
            if isinstance(event, bytes):
                yield from self._down(event)
            elif isinstance(event, UpstreamOpened):
                yield from self._opened(event.error)
            elif isinstance(event, UpstreamEnded):
                yield from self._upstream_ended()

    def _opened(self, error: DialError | UpstreamError | str | None) -> Commands:
        if error is not None:
            # The 200 has been sent, so the client cannot be told the reason.
            outcome = str(getattr(error, "failure", "connect-failed"))
            if isinstance(error, DialError) and error.decision is not None:
                outcome = error.decision.reason.value
            yield from self._close(outcome)
            return
        self._upstream.is_open = True
        self._attempt.upstream = self._upstream.address
        self._session.wait(Waiting.TUNNEL)
        data = bytes(self._waiting)
        self._waiting.clear()
        self._attempt.bytes_up += len(data)
        yield from self._upstream.send(data)
        yield PauseReading(self.context.client, hold=False)

    def _up(self, data: bytes) -> Commands:
        if not self._upstream.is_open:
            self._waiting += data
            return
        if self._second_hello is not None:
            self._waiting += data
            refused = self._second_hello_refused(self._second_hello)
            if refused is not None:
                yield from self._close(refused.value)
            if self._awaits_second_hello():
                return
            data = bytes(self._waiting)
            self._waiting.clear()
        self._attempt.bytes_up += len(data)
        yield from self._upstream.send(data)

    def _awaits_second_hello(self) -> bool:
        return self._second_hello is not None

    def _second_hello_refused(self, reader: HelloReader) -> Reason | None:
        """Read the second hello; return the reason if it is refused, drop its reader if it agrees.

        None: it agrees, or is not complete yet.
        """
        skip = skip_change_cipher_spec(self._waiting)
        if skip is None:
            return None
        session = self._session
        try:
            unread = bytes(self._waiting[skip:])[len(reader.raw) :]
            hello = reader.feed(unread)
        except HelloUnreadableError:
            reason = Reason.HELLO_UNREADABLE
            session.gate.refuse_first_bytes(
                session.client_info, self._attempt, reason, self._target
            )
            return reason
        if hello is None:
            return None
        denied = session.gate.hello(
            session.client_info,
            self._target,
            hello.sni,
            encrypted=hello.encrypted,
            tls=Tls.PASSTHROUGH,
        )
        if denied is not None:
            session.gate.end(denied)
            return denied.decision.reason
        self._second_hello = None
        return None

    def _down(self, data: bytes) -> Commands:
        self._attempt.bytes_down += len(data)
        if self._attempt.first_byte is None:
            self._session.gate.answered(self._attempt, self._attempt.status)
        if self._inspects_first_bytes:
            self._first_bytes += data
            retry = is_retry_request(self._first_bytes)
            if retry is None:
                return
            data = bytes(self._first_bytes)
            self._first_bytes.clear()
            self._inspects_first_bytes = False
            if retry:
                self._second_hello = HelloReader()
        yield commands.SendData(self.context.client, data)

    def _client_closed(self) -> Commands:
        if self.context.client.state is ConnectionState.CLOSED:
            lost = not self._upstream.is_open or self._session.loss == SHED
            yield from self._close(self._session.loss if lost else None)
        elif self._upstream.is_open:
            yield from self._upstream.end_sending()
        else:
            yield from self._close(self._session.loss)

    def _upstream_ended(self) -> Commands:
        yield from self._release_first_bytes()
        yield from self._close(None)

    def _release_first_bytes(self) -> Commands:
        if self._first_bytes:
            yield commands.SendData(self.context.client, bytes(self._first_bytes))
            self._first_bytes.clear()

    def _close(self, outcome: str | None) -> Commands:
        self._session.gate.end(self._attempt, outcome)
        yield from self._upstream.close()
        yield commands.CloseConnection(self.context.client)
