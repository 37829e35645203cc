"""An upstream connection, with or without TLS, as the HTTP/1.1 lane and a tunnel use it.

What arrives is put into an inbox and not acted on here: the lane reads it once the TLS layer has
finished with the event, so that what it sends is encrypted once and not twice.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mitmproxy.connection import Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.tls import ServerTLSLayer

from claude_proxy.proxy.dialer import DialError
from claude_proxy.proxy.layers.tls_fast_path import FastTlsLayer
from claude_proxy.wire.authority import Authority


class UpstreamOpened:
    """The connection is open, TLS included, or `error` says why it is not."""

    __slots__ = ("error",)

    def __init__(self, error: DialError | str | None) -> None:
        self.error = error


class UpstreamEnded:
    """The upstream will send no more."""

    __slots__ = ()


@dataclass(eq=False, repr=False, kw_only=True)
class UpstreamServer(Server):
    """mitmproxy's record of an upstream connection, and how an upstream proxy carries it."""

    tunnel: bool = True  # by CONNECT; else requests are sent to it in absolute-form


type UpstreamEvent = bytes | UpstreamOpened | UpstreamEnded

_UPSTREAM_ENDED = UpstreamEnded()


class UpstreamTls(FastTlsLayer, ServerTLSLayer):
    """TLS towards the upstream."""


class _InboxLayer(layer.Layer):
    """The innermost layer of an upstream connection; puts what arrives into the inbox."""

    def __init__(self, context: Context, inbox: deque[UpstreamEvent]) -> None:
        super().__init__(context)
        self._inbox = inbox

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived):
            self._inbox.append(event.data)
        elif isinstance(event, events.Start):
            error = yield commands.OpenConnection(self.context.server)
            self._inbox.append(UpstreamOpened(error))
        elif isinstance(event, events.ConnectionClosed):
            self._inbox.append(_UPSTREAM_ENDED)


class UpstreamConnection:
    """A connection to `target`; sans-io like every layer, and opened by `open`."""

    def __init__(
        self,
        context: Context,
        target: Authority,
        *,
        tls: bool,
        alpn: tuple[bytes, ...] = (),
        tunnel: bool | None = None,
    ) -> None:
        inner = context.fork()
        self.target = target
        self.tls = tls
        self.server = UpstreamServer(
            address=(target.host, target.port), tunnel=tls if tunnel is None else tunnel
        )
        self.inbox: deque[UpstreamEvent] = deque()
        self.is_open = False
        self._address: str | None = None
        self.exchanges = 0  # requests sent on it; the first failure of a kept one may be retried
        inner.server = self.server
        self._tls: UpstreamTls | None = None
        self._stack: layer.Layer
        if tls:
            # The name that is verified is the one that was judged, never the client's spelling.
            self.server.sni = target.host
            self.server.alpn_offers = alpn
            self._tls = UpstreamTls(inner)
            self._tls.child_layer = _InboxLayer(inner, self.inbox)
            self._stack = self._tls
        else:
            self._stack = _InboxLayer(inner, self.inbox)

    @property
    def address(self) -> str | None:
        """The judged address that was dialled ("203.0.113.5:443"), once there is one."""
        peer = self.server.peername
        if self._address is None and peer is not None:
            self._address = str(Authority.of(peer[0], peer[1]))
        return self._address

    @property
    def ended_well(self) -> bool:
        """Whether its end was orderly: no reset, and no TLS record that did not authenticate."""
        return self.server.error is None

    def owns(self, event: events.ConnectionEvent | events.CommandCompleted) -> bool:
        """Tell whether an event belongs to this connection, not to one given up before."""
        if isinstance(event, events.ConnectionEvent):
            return event.connection is self.server
        command = event.command
        return not isinstance(command, commands.OpenConnection) or command.connection is self.server

    def open(self) -> Iterable[commands.Command]:
        """Dial, and do the TLS handshake; an `UpstreamOpened` arrives in the inbox."""
        return self._stack.handle_event(events.Start())

    def handle(self, event: events.Event) -> Iterable[commands.Command]:
        """Handle an event of this connection; the inbox may have news afterwards."""
        return self._stack.handle_event(event)

    def send(self, data: bytes) -> Iterable[commands.Command]:
        """Send plain bytes, encrypted where the connection has TLS."""
        if self._tls is None:
            return (commands.SendData(self.server, data),)
        out: list[commands.Command] = []
        self._tls.encrypt(data, out)
        return out

    def end_sending(self) -> Iterator[commands.Command]:
        """Close our half; with TLS only the whole connection is closed (RFC 8446 6.1)."""
        if self._tls is None:
            yield commands.CloseTcpConnection(self.server, half_close=True)

    def close(self) -> Iterator[commands.Command]:
        """Close the connection; what arrives afterwards is ignored."""
        self.is_open = False
        yield commands.CloseConnection(self.server)
