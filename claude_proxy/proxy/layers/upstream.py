"""Upstream connection, with or without TLS, for the HTTP/1.1 lane and passthrough tunnels.

Received data is put into an inbox: the lane reads it only after the TLS layer has finished handling
the event, so that what the lane then sends is encrypted once and not twice.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

from mitmproxy.connection import Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.tls import ServerTLSLayer

from claude_proxy.proxy.dialer import DialError
from claude_proxy.proxy.layers.connection_records import next_id
from claude_proxy.proxy.layers.tls_fast_path import FastTlsLayer
from claude_proxy.proxy.tls_failures import broken_off, failed_handshake
from claude_proxy.proxy.upstream_errors import UpstreamError
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.head import ResponseHead
from claude_proxy.wire.tls_handshake import asks_for_certificate


class UpstreamOpened:
    """The connection is open, including TLS, or `error` says why it is not."""

    __slots__ = ("error",)

    def __init__(self, error: DialError | UpstreamError | str | None) -> None:
        self.error = error


class UpstreamEnded:
    """The upstream has ended its stream."""

    __slots__ = ()


@dataclass(eq=False, repr=False, kw_only=True)
class UpstreamServer(Server):
    """mitmproxy's record of an upstream connection, and how an upstream proxy is used for it."""

    id: str = field(default_factory=next_id)
    tunnel: bool = True  # with CONNECT; else requests are sent in absolute-form
    # How many bytes the upstream had acknowledged before the first request; None: it is not known.
    acknowledged: int | None = None
    # It has ended, and its kernel had nothing of what was sent since.
    is_untouched: bool = False

    # It equals itself and nothing else, as a client's does.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


type UpstreamEvent = bytes | UpstreamOpened | UpstreamEnded

_UPSTREAM_ENDED = UpstreamEnded()
# What a server sends before it may ask for a certificate fits in; its own are a few KiB.
_KEPT_HANDSHAKE = 64 * 1024


class UpstreamTls(FastTlsLayer, ServerTLSLayer):
    """TLS towards the upstream; says in plain words why a handshake failed."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._received = bytearray()  # during the handshake

    def receive_handshake_data(
        self, data: bytes
    ) -> layer.CommandGenerator[tuple[bool, str | None]]:
        """Continue the handshake."""
        if len(self._received) < _KEPT_HANDSHAKE:
            self._received += data
        return (yield from super().receive_handshake_data(data))

    def _handshake_finished(self, err: str | None) -> layer.CommandGenerator[None]:
        failure: UpstreamError | None = None
        if err is not None:
            asked = asks_for_certificate(self._received)
            failure = failed_handshake(err, target_of(cast("Server", self.conn)), asked=asked)
        self._received.clear()
        # mitmproxy's layers only test whether there is an error, and pass it on unchanged.
        yield from super()._handshake_finished(cast("str | None", failure))


def target_of(server: Server) -> Authority:
    """Return the host and port that an upstream connection is to reach."""
    host, port = server.address or ("", 0)
    return Authority.of(host, port)


def is_worth_another(head: ResponseHead) -> bool:
    """Tell by a response whether a connection to its upstream should be kept ready for the next.

    One that speaks HTTP/1.0 may serve one connection at a time, and one that waits would block it.
    """
    is_busy = head.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return head.minor > 0 and not is_busy and head.status != HTTPStatus.TOO_MANY_REQUESTS


class _InboxLayer(layer.Layer):
    """The innermost layer of an upstream connection; puts what arrives into the inbox."""

    def __init__(self, context: Context, inbox: deque[UpstreamEvent]) -> None:
        super().__init__(context)
        self._inbox = inbox

    def handle_event(self, event: events.Event) -> Iterable[commands.Command]:  # type: ignore[override]
        """Take what arrives on an open connection without the generators of the base class."""
        if self._paused is None and isinstance(event, events.DataReceived):
            self._inbox.append(event.data)
            return ()
        return super().handle_event(event)

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
        self.is_warm = False  # it was open before there was a request for it
        self.exchanges = 0  # requests sent on it; a failure of a reused connection may be retried
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
        """Whether it ended without a reset and without a TLS record that did not authenticate."""
        return self.server.error is None

    @property
    def failure(self) -> UpstreamError:
        """Why it ended, where no response had come."""
        return broken_off(self.server.error, self.target)

    def owns(self, event: events.ConnectionEvent | events.CommandCompleted) -> bool:
        """Tell whether an event belongs to this connection, not to one abandoned before."""
        if isinstance(event, events.ConnectionEvent):
            return event.connection is self.server
        command = event.command
        return not isinstance(command, commands.OpenConnection) or command.connection is self.server

    def open(self) -> Iterable[commands.Command]:
        """Dial and do the TLS handshake; the result is an `UpstreamOpened` in the inbox."""
        return self._stack.handle_event(events.Start())

    def handle(self, event: events.Event) -> Iterable[commands.Command]:
        """Handle an event of this connection, which may add to the inbox."""
        return self._stack.handle_event(event)

    def send(self, data: bytes) -> Iterable[commands.Command]:
        """Send bytes, encrypted if the connection has TLS."""
        if self._tls is None:
            return (commands.SendData(self.server, data),)
        out: list[commands.Command] = []
        self._tls.encrypt(data, out)
        return out

    def end_sending(self) -> Iterator[commands.Command]:
        """Close our half; with TLS do nothing, as only the whole connection is closed."""
        if self._tls is None:
            yield commands.CloseTcpConnection(self.server, half_close=True)

    def close(self) -> Iterator[commands.Command]:
        """Close the connection; what arrives afterwards is ignored."""
        self.is_open = False
        yield commands.CloseConnection(self.server)
