"""Takes the first bytes inside an open tunnel: a ClientHello that agrees, or allowed plain HTTP.

Law 4: the hello is read whole and must name the tunnel's target; what is neither TLS nor plain
HTTP under a rule is refused. It is the same behind CONNECT and behind SOCKS5.
"""

from collections.abc import Callable

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from claude_proxy.events import Phase
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import Tls
from claude_proxy.proxy.dialer import Dialer
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.layers.http1_proxy import proxy_lane
from claude_proxy.proxy.layers.http2 import Http2Lane
from claude_proxy.proxy.layers.passthrough import Passthrough
from claude_proxy.proxy.layers.session import Commands, RuleRevoked, Session, TimedOut, Waiting
from claude_proxy.proxy.layers.tls_intercept import TlsIntercept
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.client_hello import (
    ClientHello,
    HelloReader,
    HelloUnreadableError,
    starts_like_tls,
)

# Lets another layer have the connection, and the bytes of it that were read and not used.
type ReplaceWith = Callable[[layer.Layer, bytes], Commands]

# A fatal alert in the clear, so that the client's own error says that it was refused on purpose:
# access_denied (49) and decode_error (50), RFC 8446 section 6.
_ALERT_DENIED = b"\x15\x03\x03\x00\x02\x02\x31"
_ALERT_UNREADABLE = b"\x15\x03\x03\x00\x02\x02\x32"


class TunnelStart(layer.Layer):
    """The first layer inside the tunnel to `target`, which `passage` opened."""

    def __init__(  # noqa: PLR0913 - what is known of a tunnel once it is open
        self,
        context: Context,
        session: Session,
        passage: Attempt,
        give_way: ReplaceWith,
        *,
        target: Authority,
        dialer: Dialer | None,
    ) -> None:
        super().__init__(context)
        self._session = session
        self._passage = passage
        self._give_way = give_way
        self._target = target
        self._dialer = dialer  # for plain HTTP, unless it is to go through a tunnel
        self._in = bytearray()
        self._hello: HelloReader | None = None
        self._over = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if self._over:
            return
        if isinstance(event, events.Start):
            self._session.wait(Waiting.HANDSHAKE)
        elif isinstance(event, events.DataReceived):
            yield from self._data(event.data)
        elif isinstance(event, events.ConnectionClosed):
            self._end("client-closed")
            if self.context.client.state is ConnectionState.CLOSED:
                self._over = True
            else:
                yield from self._close()
        elif isinstance(event, (TimedOut, RuleRevoked)):
            expired = isinstance(event, TimedOut)
            self._end("handshake-timeout" if expired else Reason.RULE_WITHDRAWN.value)
            yield from self._close()

    def _data(self, data: bytes) -> Commands:
        if self._hello is None:
            self._in += data
            is_tls = starts_like_tls(self._in)
            if is_tls is None:
                return
            data = bytes(self._in)
            self._in.clear()
            if not is_tls:
                yield from self._plain(data)
                return
            if not self._passage.decision.secure:
                yield from self._deny(Reason.SCHEME_NOT_ALLOWED, _ALERT_DENIED)
                return
            self._hello = HelloReader()
        try:
            hello = self._hello.feed(data)
        except HelloUnreadableError:
            yield from self._deny(Reason.HELLO_UNREADABLE, _ALERT_UNREADABLE)
            return
        if hello is not None:
            yield from self._judge(hello, bytes(self._hello.raw))

    def _judge(self, hello: ClientHello, raw: bytes) -> Commands:
        session, target, passage = self._session, self._target, self._passage
        denied = session.gate.hello(
            session.client_info, target, hello.sni, encrypted=hello.encrypted
        )
        if denied is not None:
            session.gate.end(denied)
            yield from self._alert(denied.decision.reason, _ALERT_DENIED)
        elif passage.decision.tls is Tls.PASSTHROUGH:
            passthrough = Passthrough(self.context, session, target, passage, raw)
            yield from self._give_way(passthrough, b"")
        elif passage.decision.tls is Tls.INTERCEPT:
            session.gate.end(passage)
            self.context.server.address = (target.host, target.port)
            yield from self._give_way(TlsIntercept(self.context, hello, self._lane), raw)
        else:
            yield from self._deny(Reason.INTERNAL_ERROR, _ALERT_DENIED)

    def _lane(self, context: Context) -> layer.Layer:
        """Return the layer for the protocol that our handshake with the client settled on."""
        if context.client.alpn == b"h2":
            self._session.protocol = "h2"
            return Http2Lane(context, self._session, self._target)
        return proxy_lane(context, self._session, scheme=Scheme.HTTPS, target=self._target)

    def _plain(self, data: bytes) -> Commands:
        """Speak plain HTTP in the tunnel where a rule allows http to the target, else nothing."""
        if not self._passage.decision.plain:
            yield from self._deny(Reason.NOT_TLS, b"")
            return
        session = self._session
        session.gate.end(self._passage)
        lane = proxy_lane(
            self.context, session, scheme=Scheme.HTTP, target=self._target, dialer=self._dialer
        )
        yield from self._give_way(lane, data)

    def _deny(self, reason: Reason, alert: bytes) -> Commands:
        session = self._session
        denied = session.gate.refuse(session.client_info, Phase.HELLO, reason, self._target)
        session.gate.end(denied)
        yield from self._alert(reason, alert)

    def _alert(self, reason: Reason, alert: bytes) -> Commands:
        self._end(reason.value)
        if alert:
            yield commands.SendData(self.context.client, alert)
        yield from self._close()

    def _end(self, word: str) -> None:
        self._session.gate.end(self._passage, word)

    def _close(self) -> Commands:
        self._over = True
        yield commands.CloseConnection(self.context.client)
