"""Takes a client's first bytes: judges its CONNECT and its ClientHello before anything else runs.

Laws 3 and 4. A denied CONNECT is answered here, before any TLS and before any of mitmproxy's
HTTP. Inside a tunnel the ClientHello is read whole and must name the tunnel's target.
"""

from collections.abc import Callable, Iterator

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from claude_proxy.authority import Authority
from claude_proxy.denial import Refusal, bad_request, denial
from claude_proxy.dialer import Dialer
from claude_proxy.events import Phase
from claude_proxy.gate import Passage
from claude_proxy.layers.http1 import Http1Lane
from claude_proxy.layers.http2 import Http2Lane
from claude_proxy.layers.intercept import Intercept
from claude_proxy.layers.signals import Expired, Session, Waiting, Withdrawn
from claude_proxy.layers.tunnel import Passthrough
from claude_proxy.policy import Reason, Scheme, Tls
from claude_proxy.wire.clienthello import (
    ClientHello,
    HelloReader,
    HelloUnreadableError,
    starts_like_tls,
)
from claude_proxy.wire.http1 import BadMessage, RequestHead, read_request_head

type Commands = Iterator[commands.Command]

_CONNECT = b"CONNECT "
_PLAIN_PORT = 80
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
# A fatal alert in the clear, so that the client's own error says that it was refused on purpose:
# access_denied (49) and decode_error (50), RFC 8446 section 6.
_ALERT_DENIED = b"\x15\x03\x03\x00\x02\x02\x31"
_ALERT_UNREADABLE = b"\x15\x03\x03\x00\x02\x02\x32"


class Front(layer.Layer):
    """The first layer of every connection; gives way to another once it knows which."""

    def __init__(self, context: Context, session: Session, dialer: Dialer) -> None:
        super().__init__(context)
        self._session = session
        self._dialer = dialer
        self._in = bytearray()
        self._passage: Passage | None = None  # of the tunnel, once one is open
        self._hello: HelloReader | None = None
        self._over = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if self._over:
            return
        if isinstance(event, events.DataReceived):
            yield from self._data(event.data)
        elif isinstance(event, events.ConnectionClosed):
            if self.context.client.state is ConnectionState.CLOSED:
                self._over = True
                self._end_tunnel("client-closed")
            else:
                self._end_tunnel("client-closed")
                yield from self._close()
        elif isinstance(event, (Expired, Withdrawn)):
            yield from self._expired(event)

    def _data(self, data: bytes) -> Commands:
        if self._passage is not None and self._session.target is not None:
            yield from self._tunnel_bytes(self._session.target, self._passage, data)
            return
        self._in += data
        if self._in.startswith(_CONNECT):
            yield from self._connect()
        elif not _CONNECT.startswith(self._in):
            yield from self._become(self._plain_lane())

    # --- CONNECT

    def _connect(self) -> Commands:
        session = self._session
        try:
            head = read_request_head(self._in, session.head_limit)
        except BadMessage as error:
            yield from self._refuse(None, Reason.BAD_REQUEST, bad_request(error.text, error.status))
            return
        if head is None:
            return
        try:
            target = Authority.parse(head.authority)
        except ValueError:
            yield from self._refuse(head, Reason.INVALID_TARGET, None)
            return
        if not _agrees(head, target):
            yield from self._refuse(head, Reason.HOST_MISMATCH, None)
            return
        passage = session.gate.connect(session.origin, target)
        if not passage.decision.allowed:
            reason = passage.decision.reason.value
            scheme = Scheme.HTTP if target.port == _PLAIN_PORT else Scheme.HTTPS
            refusal = denial(reason, f"CONNECT {target}", target, scheme)
            yield from self._answer(head, passage, refusal)
            return
        session.target = target
        session.wait(Waiting.HANDSHAKE)
        self._passage = passage
        passage.status = 200
        yield commands.SendData(self.context.client, _ESTABLISHED)
        if self._in:
            early = bytes(self._in)
            self._in.clear()
            yield from self._tunnel_bytes(target, passage, early)

    def _refuse(
        self, head: RequestHead | None, reason: Reason, refusal: Refusal | None
    ) -> Commands:
        session = self._session
        target = "" if head is None else head.target
        passage = session.gate.refuse(
            session.origin, Phase.CONNECT, reason, target, method="CONNECT"
        )
        if refusal is None:
            refusal = denial(passage.decision.reason.value, f"CONNECT {target}", None)
        yield from self._answer(head, passage, refusal)

    def _answer(self, head: RequestHead | None, passage: Passage, refusal: Refusal) -> Commands:
        passage.status = refusal.status
        self._session.gate.end(passage)
        accept = None if head is None else head.get(b"accept")
        yield commands.SendData(self.context.client, refusal.http1(accept=accept, close=True))
        yield from self._close()

    # --- the first bytes inside a tunnel

    def _tunnel_bytes(self, target: Authority, passage: Passage, data: bytes) -> Commands:
        if self._hello is None:
            self._in += data
            is_tls = starts_like_tls(self._in)
            if is_tls is None:
                return
            data = bytes(self._in)
            self._in.clear()
            if not is_tls:
                yield from self._plain_tunnel(target, passage, data)
                return
            if not passage.decision.secure:
                yield from self._deny_hello(target, Reason.SCHEME_NOT_ALLOWED, _ALERT_DENIED)
                return
            self._hello = HelloReader()
        try:
            hello = self._hello.feed(data)
        except HelloUnreadableError:
            yield from self._deny_hello(target, Reason.HELLO_UNREADABLE, _ALERT_UNREADABLE)
            return
        if hello is not None:
            yield from self._judge_hello(target, passage, hello, bytes(self._hello.raw))

    def _judge_hello(
        self, target: Authority, passage: Passage, hello: ClientHello, raw: bytes
    ) -> Commands:
        session = self._session
        denied = session.gate.hello(session.origin, target, hello.sni, encrypted=hello.encrypted)
        if denied is not None:
            session.gate.end(denied)
            yield from self._alert(denied.decision.reason, _ALERT_DENIED)
        elif passage.decision.tls is Tls.PASSTHROUGH:
            yield from self._become(Passthrough(self.context, session, target, passage, raw), b"")
        elif passage.decision.tls is Tls.INTERCEPT:
            session.gate.end(passage)
            self.context.server.address = (target.host, target.port)
            intercept = Intercept(self.context, hello, self._inner_layer(target))
            yield from self._become(intercept, raw)
        else:
            yield from self._deny_hello(target, Reason.INTERNAL_ERROR, _ALERT_DENIED)

    def _inner_layer(self, target: Authority) -> Callable[[Context], layer.Layer]:
        session = self._session

        def choose(context: Context) -> layer.Layer:
            if context.client.alpn == b"h2":
                session.protocol = "h2"
                return Http2Lane(context, session, target)
            return Http1Lane(context, session, scheme=Scheme.HTTPS, target=target)

        return choose

    def _plain_tunnel(self, target: Authority, passage: Passage, data: bytes) -> Commands:
        """Speak plain HTTP in the tunnel where a rule allows http to the target, else nothing."""
        if not passage.decision.plain:
            yield from self._deny_hello(target, Reason.NOT_TLS, b"")
            return
        self._session.gate.end(passage)
        yield from self._become(self._plain_lane(target), data)

    def _deny_hello(self, target: Authority, reason: Reason, alert: bytes) -> Commands:
        session = self._session
        denied = session.gate.refuse(session.origin, Phase.HELLO, reason, target)
        session.gate.end(denied)
        yield from self._alert(reason, alert)

    def _alert(self, reason: Reason, alert: bytes) -> Commands:
        self._end_tunnel(reason.value)
        if alert:
            yield commands.SendData(self.context.client, alert)
        yield from self._close()

    # --- giving way, and ends

    def _plain_lane(self, target: Authority | None = None) -> Http1Lane:
        return Http1Lane(
            self.context, self._session, scheme=Scheme.HTTP, target=target, dialer=self._dialer
        )

    def _become(self, successor: layer.Layer, early: bytes | None = None) -> Commands:
        """Let `successor` have this connection and the bytes that were read of it."""
        data = bytes(self._in) if early is None else early
        self._in.clear()

        def hand_on(event: events.Event) -> Commands:
            # Looked up anew each time: a TLS layer changes its own once its handshake is done.
            yield from successor.handle_event(event)

        self.handle_event = hand_on  # type: ignore[assignment, method-assign]
        yield from successor.handle_event(events.Start())
        if data:
            yield from successor.handle_event(events.DataReceived(self.context.client, data))

    def _expired(self, event: events.Event) -> Commands:
        word = "handshake-timeout" if isinstance(event, Expired) else Reason.RULE_WITHDRAWN.value
        if self._passage is not None:
            self._end_tunnel(word)
        elif self._in:
            refusal = Refusal(408, "bad-request", "The request head did not come in time.")
            yield commands.SendData(self.context.client, refusal.http1(close=True))
        yield from self._close()

    def _end_tunnel(self, word: str) -> None:
        if self._passage is not None:
            self._session.gate.end(self._passage, word)

    def _close(self) -> Commands:
        self._over = True
        yield commands.CloseConnection(self.context.client)


def _agrees(head: RequestHead, target: Authority) -> bool:
    """Tell whether a CONNECT's Host names its target (law 4); HTTP/1.0 may send none."""
    if head.host is None:
        return True
    try:
        return Authority.parse(head.host, default_port=target.port) == target
    except ValueError:
        return False
