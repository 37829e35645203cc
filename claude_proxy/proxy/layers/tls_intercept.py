"""TLS interception: the TLS server that a client sees, after its ClientHello was judged.

mitmproxy's layer does the TLS. Its parsing of the hello, and its hook that decides what to do with
it, are skipped because the hello has already been judged.
"""

from collections.abc import Callable
from typing import Protocol

from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers.tls import ClientTLSLayer, TLSLayer
from mitmproxy.proxy.tunnel import TunnelState
from OpenSSL import SSL

from claude_proxy.proxy.layers.session import TimedOut
from claude_proxy.proxy.layers.tls_fast_path import FastTlsLayer
from claude_proxy.wire.client_hello import ClientHello

type MakeLayer = Callable[[context.Context], layer.Layer]


class ClientWatch(Protocol):
    """Learns once how a client's TLS went."""

    def trusted(self) -> None:
        """Note that the client sent something through TLS, so it trusts the certificate."""

    def failed(self, error: str) -> None:
        """Note that the handshake failed, and why."""

    def left(self, error: str | None) -> None:
        """Note that the client left after the handshake, before it sent anything."""

    def timed_out(self) -> None:
        """Note that the handshake took too long."""


class _AfterHandshake(layer.Layer):
    """Replaced by the layer for the protocol that the handshake negotiated (ALPN)."""

    def __init__(self, context: context.Context, make: MakeLayer, watch: ClientWatch) -> None:
        super().__init__(context)
        self.context.layers.remove(self)
        self._make = make
        self._watch = watch

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            successor = self._make(self.context)

            def until_it_sends(event: events.Event) -> layer.CommandGenerator[None]:
                if isinstance(event, events.DataReceived):
                    self._watch.trusted()
                elif isinstance(event, events.ConnectionClosed):
                    self._watch.left(self.context.client.error)
                else:
                    yield from successor.handle_event(event)
                    return
                self.handle_event = successor.handle_event  # type: ignore[method-assign]
                yield from successor.handle_event(event)

            self.handle_event = until_it_sends  # type: ignore[method-assign]
            yield from successor.handle_event(event)


class TlsIntercept(FastTlsLayer, ClientTLSLayer):
    """The TLS server that the client sees."""

    def __init__(
        self, context: context.Context, hello: ClientHello, inner: MakeLayer, watch: ClientWatch
    ) -> None:
        super().__init__(context)
        self.child_layer = _AfterHandshake(context, inner, watch)
        self._hello = hello
        self._watch = watch

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, TimedOut) and self.tunnel_state is TunnelState.ESTABLISHING:
            self._watch.timed_out()
        yield from super()._handle_event(event)

    def on_handshake_error(self, err: str) -> layer.CommandGenerator[None]:
        """Tell why the handshake failed."""
        self._watch.failed(err)
        yield from super().on_handshake_error(err)

    def receive_handshake_data(
        self, data: bytes
    ) -> layer.CommandGenerator[tuple[bool, str | None]]:
        """Continue the handshake; the first bytes are the hello that is already known."""
        if not self.client_hello_parsed:
            self.client_hello_parsed = True
            self.conn.sni = self._hello.sni
            self.conn.alpn_offers = self._hello.alpn
            yield from self.start_tls()
            if not self.conn.connected:
                return False, "connection closed early"
        return (yield from TLSLayer.receive_handshake_data(self, data))

    def send_close(self, command: commands.CloseConnection) -> layer.CommandGenerator[None]:
        """Send close_notify first, so that the end is not a truncation (RFC 8446, section 6.1)."""
        if self.tls is not None:
            try:
                self.tls.shutdown()
            except SSL.Error:
                pass  # the peer has aborted TLS; there is nothing left to send
            else:
                yield from self.tls_interact()
        yield from super().send_close(command)
