"""TLS fast path: encrypts and decrypts after the handshake with less work than mitmproxy's layers.

mitmproxy's layers do the handshake. After it, they would pass each event through five nested
generators and ask OpenSSL for more output until it raises, which is two thirds of the cost of a
persistent connection. Decisions and their order are the same.
"""

from collections.abc import Iterable
from contextlib import suppress

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.tls import TLSLayer
from mitmproxy.proxy.tunnel import TunnelState
from OpenSSL import SSL

from claude_proxy.proxy.tls_failures import alert_words

# One read of OpenSSL's output; a shorter result means that there is no more.
_OUTPUT = 64 * 1024
_RECORD = 16 * 1024


class FastTlsLayer(TLSLayer):
    """A TLS layer that takes the fast path once its handshake is done."""

    def _handshake_finished(self, err: str | None) -> layer.CommandGenerator[None]:
        yield from super()._handshake_finished(err)
        if err is None:
            # The driver sends one event at a time, so none is in progress on the slow path.
            self.handle_event = self._handle_fast  # type: ignore[assignment, method-assign]

    def encrypt(self, data: bytes, out: list[commands.Command]) -> None:
        """Append to `out` the commands that send `data` to this layer's peer."""
        # After our close_notify the peer may still send, but nothing more is sent to it.
        with suppress(SSL.ZeroReturnError, SSL.SysCallError):
            self.tls.sendall(data)
        self._drain(out)

    def _handle_fast(self, event: events.Event) -> Iterable[commands.Command]:
        out: list[commands.Command] = []
        if isinstance(event, events.DataReceived) and event.connection is self.conn:
            self._decrypt(event.data, out)
        elif isinstance(event, events.ConnectionClosed) and event.connection is self.conn:
            self.tunnel_state = TunnelState.CLOSED
            # After a close_notify the child has already been notified.
            is_known = self.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN
            if not is_known or self.conn.state is ConnectionState.CLOSED:
                self._pass_to_child(event, out)
        else:
            self._pass_to_child(event, out)
        return out

    def _decrypt(self, data: bytes, out: list[commands.Command]) -> None:
        tls = self.tls
        tls.bio_write(data)
        pieces: list[bytes] = []
        ended = broken = False
        while True:
            try:
                pieces.append(tls.recv(_RECORD))
            except SSL.WantReadError:
                break
            except SSL.Error as error:
                # A close_notify, a fatal alert, or a record that does not authenticate: nothing
                # valid can follow, but everything before it was valid.
                ended = True
                if not isinstance(error, SSL.ZeroReturnError):
                    broken = True
                    self.conn.error = alert_words(error)
                    out.append(commands.Log(f"TLS ended with {type(error).__name__}"))
                break
        # Reading may make OpenSSL write (key updates, alerts). If there are decrypted bytes to pass
        # on, that output can wait for the next write, which it precedes (RFC 8446, section 4.6.3).
        if ended or not pieces:
            self._drain(out)
        if pieces:
            plain = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._pass_to_child(events.DataReceived(self.conn, plain), out)
        if ended and self.conn.state & ConnectionState.CAN_READ:
            # Once broken, TLS carries nothing in the other direction either.
            remains = ConnectionState.CLOSED if broken else ConnectionState.CAN_WRITE
            self.conn.state &= remains
            self._pass_to_child(events.ConnectionClosed(self.conn), out)
            if broken:
                out.append(commands.CloseConnection(self.conn))

    def _pass_to_child(self, event: events.Event, out: list[commands.Command]) -> None:
        """Pass an event to the child layer, and encrypt what it sends in response."""
        conn = self.conn
        for command in self.child_layer.handle_event(event):
            if isinstance(command, commands.ConnectionCommand) and command.connection is conn:
                if isinstance(command, commands.SendData):
                    self.encrypt(command.data, out)
                    continue
                if isinstance(command, commands.CloseConnection):
                    out.extend(self.send_close(command))
                    continue
            out.append(command)

    def _drain(self, out: list[commands.Command]) -> None:
        size = _OUTPUT
        while size == _OUTPUT:
            try:
                data = self.tls.bio_read(_OUTPUT)
            except SSL.WantReadError:
                return
            size = len(data)
            out.append(commands.SendData(self.conn, data))
