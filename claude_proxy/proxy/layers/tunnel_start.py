"""Tunnel start: checks the first bytes inside an open tunnel, after CONNECT or SOCKS5.

Law kept: agreement. A ClientHello is read completely and must name the tunnel's target; anything
that is neither TLS nor plain HTTP that a rule allows is refused.
"""

from collections.abc import Callable

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import Tls
from claude_proxy.proxy.dialer import Dialer
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.layers.http1_proxy import proxy_lane
from claude_proxy.proxy.layers.passthrough import Passthrough
from claude_proxy.proxy.layers.raw_tunnel import RawTunnel
from claude_proxy.proxy.layers.session import Commands, RuleRevoked, Session, TimedOut, Waiting
from claude_proxy.proxy.layers.tls_intercept import TlsIntercept
from claude_proxy.proxy.layers.tls_watch import TlsWatch
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.client_hello import (
    ClientHello,
    HelloReader,
    HelloUnreadableError,
    starts_like_tls,
)
from claude_proxy.wire.tls_alerts import ACCESS_DENIED, DECODE_ERROR

# Passes the connection to another layer, with the bytes that were read and not used.
type ReplaceWith = Callable[[layer.Layer, bytes], Commands]


class TunnelStart(layer.Layer):
    """The first layer inside the tunnel to `target`, which `attempt` opened."""

    def __init__(  # noqa: PLR0913 - the facts of an open tunnel
        self,
        context: Context,
        session: Session,
        attempt: Attempt,
        replace_with: ReplaceWith,
        *,
        target: Authority,
        dialer: Dialer | None,
    ) -> None:
        super().__init__(context)
        self._session = session
        self._attempt = attempt
        self._replace_with = replace_with
        self._target = target
        self._dialer = dialer  # for plain HTTP through an upstream proxy; None: use a tunnel
        self._in = bytearray()
        self._hello: HelloReader | None = None
        self._is_over = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if self._is_over:
            return
        if isinstance(event, events.Start):
            self._session.wait(Waiting.HANDSHAKE)
        elif isinstance(event, events.DataReceived):
            yield from self._data(event.data)
        elif isinstance(event, events.ConnectionClosed):
            self._end(self._session.loss)
            if self.context.client.state is ConnectionState.CLOSED:
                self._is_over = True
            else:
                yield from self._close()
        elif isinstance(event, (TimedOut, RuleRevoked)):
            timed_out = isinstance(event, TimedOut)
            self._end("handshake-timeout" if timed_out else Reason.RULE_WITHDRAWN.value)
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
            if not self._attempt.decision.secure:
                yield from self._deny(Reason.SCHEME_NOT_ALLOWED, ACCESS_DENIED)
                return
            self._hello = HelloReader()
        try:
            hello = self._hello.feed(data)
        except HelloUnreadableError:
            yield from self._deny(Reason.HELLO_UNREADABLE, DECODE_ERROR)
            return
        if hello is not None:
            yield from self._judge(hello, bytes(self._hello.raw))

    def _judge(self, hello: ClientHello, raw: bytes) -> Commands:
        session, target, attempt = self._session, self._target, self._attempt
        tls = attempt.decision.tls
        denied = session.gate.hello(
            session.client_info, target, hello.sni, encrypted=hello.encrypted, tls=tls
        )
        if denied is not None:
            session.gate.end(denied)
            yield from self._alert(denied.decision.reason, ACCESS_DENIED)
        elif tls is Tls.PASSTHROUGH:
            passthrough = Passthrough(self.context, session, target, attempt, raw)
            yield from self._replace_with(passthrough, b"")
        elif tls is Tls.INTERCEPT:
            watch = TlsWatch(session, attempt, target)
            shows = session.leaf_contexts.context_for(target.host)
            intercept = TlsIntercept(self.context, hello, self._lane, watch, shows)
            yield from self._replace_with(intercept, raw)
        else:
            yield from self._deny(Reason.INTERNAL_ERROR, ACCESS_DENIED)

    def _lane(self, context: Context) -> layer.Layer:
        """Return the layer for the protocol that the handshake with the client negotiated."""
        if context.client.alpn == b"h2":
            from claude_proxy.proxy.layers.http2 import Http2Lane  # noqa: PLC0415 - many need none

            self._session.protocol = "h2"
            return Http2Lane(context, self._session, self._target)
        return proxy_lane(context, self._session, scheme=Scheme.HTTPS, target=self._target)

    def _plain(self, data: bytes) -> Commands:
        """Continue with plain HTTP if a rule allows http to the target; else deny."""
        if not self._attempt.decision.plain:
            yield from self._deny(Reason.NOT_TLS, b"")
            return
        session = self._session
        session.gate.end(self._attempt)
        lane = proxy_lane(
            self.context, session, scheme=Scheme.HTTP, target=self._target, dialer=self._dialer
        )
        yield from self._replace_with(lane, data)

    def _deny(self, reason: Reason, alert: bytes) -> Commands:
        session = self._session
        session.gate.refuse_first_bytes(session.client_info, self._attempt, reason, self._target)
        yield from self._alert(reason, alert)

    def _alert(self, reason: Reason, alert: bytes) -> Commands:
        self._end(reason.value)
        if alert:
            yield commands.SendData(self.context.client, alert)
        yield from self._close()

    def _end(self, outcome: str) -> None:
        self._session.gate.end(self._attempt, outcome)

    def _close(self) -> Commands:
        self._is_over = True
        yield commands.CloseConnection(self.context.client)


def tunnel_to(  # noqa: PLR0913 - the facts of an open tunnel
    context: Context,
    session: Session,
    attempt: Attempt,
    replace_with: ReplaceWith,
    *,
    target: Authority,
    dialer: Dialer | None,
) -> layer.Layer:
    """Return the first layer inside the tunnel that `attempt` opened."""
    if attempt.decision.raw:
        if session.gate.database_at(target) is not None:
            from claude_proxy.proxy.layers.postgres_tunnel import (  # noqa: PLC0415 - most need none
                PostgresTunnel,
            )

            return PostgresTunnel(context, session, target, attempt, replace_with)
        return RawTunnel(context, session, target, attempt)
    return TunnelStart(context, session, attempt, replace_with, target=target, dialer=dialer)
