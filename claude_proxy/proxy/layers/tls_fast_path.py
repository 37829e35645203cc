"""Carries TLS once the handshake is over, on a shorter path than mitmproxy's general one.

mitmproxy's layers do the handshake. After it they would go on through five nested generators
an event, and ask OpenSSL for more output until it raises; this is two thirds of what a
kept connection costs. What is decided, and in which order, is the same.
"""

from collections.abc import Iterable
from contextlib import suppress

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.tls import TLSLayer
from mitmproxy.proxy.tunnel import TunnelState
from OpenSSL import SSL

# One read of OpenSSL's output; a shorter answer means that there is no more.
_OUTPUT = 64 * 1024
_RECORD = 16 * 1024


class FastTlsLayer(TLSLayer):
    """A TLS layer that changes to the short path when its handshake is done."""

    def _handshake_finished(self, err: str | None) -> layer.CommandGenerator[None]:
        yield from super()._handshake_finished(err)
        if err is None:
            # The driver gives events one at a time, so none is under way on the long path.
            self.handle_event = self._steady  # type: ignore[assignment, method-assign]

    def encrypt(self, data: bytes, out: list[commands.Command]) -> None:
        """Append to `out` what sends `data` to this layer's peer."""
        # After its close_notify a peer may still be sending, but gets nothing any more.
        with suppress(SSL.ZeroReturnError, SSL.SysCallError):
            self.tls.sendall(data)
        self._drain(out)

    def _steady(self, event: events.Event) -> Iterable[commands.Command]:
        out: list[commands.Command] = []
        if isinstance(event, events.DataReceived) and event.connection is self.conn:
            self._decrypt(event.data, out)
        elif isinstance(event, events.ConnectionClosed) and event.connection is self.conn:
            self.tunnel_state = TunnelState.CLOSED
            # After a close_notify the child has been told already.
            told = self.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN
            if not told or self.conn.state is ConnectionState.CLOSED:
                self._tell(event, out)
        else:
            self._tell(event, out)
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
                # A close_notify, or an alert of a peer that gives up: nothing more will come.
                # A record that does not authenticate is the same: what came before it was sound.
                ended = True
                if not isinstance(error, SSL.ZeroReturnError):
                    broken = True
                    self.conn.error = type(error).__name__
                    out.append(commands.Log(f"TLS ended with {type(error).__name__}"))
                break
        # Reading may have made OpenSSL write (key updates, alerts). With plain bytes to pass on,
        # that can wait for the next sending, which it must precede (RFC 8446 4.6.3) and will.
        if ended or not pieces:
            self._drain(out)
        if pieces:
            plain = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._tell(events.DataReceived(self.conn, plain), out)
        if ended and self.conn.state & ConnectionState.CAN_READ:
            # Once broken, TLS carries nothing in the other direction either.
            remains = ConnectionState.CLOSED if broken else ConnectionState.CAN_WRITE
            self.conn.state &= remains
            self._tell(events.ConnectionClosed(self.conn), out)
            if broken:
                out.append(commands.CloseConnection(self.conn))

    def _tell(self, event: events.Event, out: list[commands.Command]) -> None:
        """Give the child an event, and encrypt what it sends in answer."""
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
