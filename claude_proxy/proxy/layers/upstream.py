"""Upstream connection, with or without TLS, for the HTTP lanes and passthrough tunnels; sans-io.

Received data is put into an inbox: the lane reads it only after an event is handled, so that what
the lane then sends is encrypted once and not twice. An end that is no close_notify is never an
orderly one.
"""

import ssl
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus

from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy import commands, events

from claude_proxy.proxy.dialer import DialError
from claude_proxy.proxy.layers.connection_records import next_id
from claude_proxy.proxy.openssl_words import CLOSED, words_of
from claude_proxy.proxy.tls_failures import broken_off, failed_handshake
from claude_proxy.proxy.tls_records import TlsRecords, certificate_ends
from claude_proxy.proxy.upstream_errors import UpstreamError
from claude_proxy.proxy.upstream_tls import TlsFor, UpstreamHandshake
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

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute; mitmproxy's check is about two of thirty."""
        if name in _CHECKED:
            super().__setattr__(name, value)  # type: ignore[no-untyped-call]
        else:
            object.__setattr__(self, name, value)

    # It equals itself and nothing else, as a client's does.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


_CHECKED = frozenset({"address", "via"})  # neither can change once the connection is open

type UpstreamEvent = bytes | UpstreamOpened | UpstreamEnded

_UPSTREAM_ENDED = UpstreamEnded()
# What a server sends before it may ask for a certificate fits in; its own are a few KiB.
_KEPT_HANDSHAKE = 64 * 1024
# Bytes of a long transfer pass in pieces that stay in the cache of the core, and whose memory the C
# library keeps: that of larger ones comes from the system at each read, page by page.
PIECE = 64 * 1024


def is_worth_another(head: ResponseHead) -> bool:
    """Tell by a response whether a connection to its upstream should be kept ready for the next.

    One that speaks HTTP/1.0 may serve one connection at a time, and one that waits would block it.
    """
    is_busy = head.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return head.minor > 0 and not is_busy and head.status != HTTPStatus.TOO_MANY_REQUESTS


class UpstreamConnection:
    """A connection to `target`, opened by `open`; `tls` is how TLS begins on it, None: not."""

    def __init__(
        self,
        target: Authority,
        *,
        tls: TlsFor | None,
        alpn: tuple[bytes, ...] = (),
        tunnel: bool | None = None,
    ) -> None:
        self.target = target
        self.tls = tls is not None
        self.server = UpstreamServer(
            address=(target.host, target.port), tunnel=self.tls if tunnel is None else tunnel
        )
        self.inbox: deque[UpstreamEvent] = deque()
        self.is_open = False
        self._address: str | None = None
        self.is_warm = False  # it was open before there was a request for it
        self.exchanges = 0  # requests sent on it; a failure of a reused connection may be retried
        self._tls = tls
        self._alpn = alpn
        self._handshake: UpstreamHandshake | None = None
        self._received = bytearray()  # during the handshake
        self._records: TlsRecords | None = None  # after it
        self._has_ended = False

    @property
    def address(self) -> str | None:
        """The judged address that was dialled ("203.0.113.5:443"), once there is one."""
        peer = self.server.peername
        if self._address is None and peer is not None:
            self._address = str(Authority.of(peer[0], peer[1]))
        return self._address

    @property
    def certificate_ends(self) -> float | None:
        """When the certificate expires by which it was verified; None: it has no TLS, or not yet.

        In seconds since the epoch.
        """
        return None if self._records is None else certificate_ends(self._records.tls)

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
        command = commands.OpenConnection(self.server)
        command.blocking = False  # no layer of mitmproxy's is to wait: the reply comes to `handle`
        if self._tls is not None:
            self._tls.prepare()
        return (command,)

    def start_tls(self, tls: TlsFor) -> Iterable[commands.Command]:
        """Begin TLS on the open connection; the result is another `UpstreamOpened` in the inbox."""
        out: list[commands.Command] = []
        self.is_open = False
        self.tls, self._tls = True, tls
        self._connected(None, out)
        return out

    def handle(self, event: events.Event) -> Iterable[commands.Command]:
        """Handle an event of this connection, which may add to the inbox."""
        out: list[commands.Command] = []
        if isinstance(event, events.DataReceived):
            if self._records is not None:
                self._decrypt(self._records, event.data, out)
            elif self._handshake is not None:
                self._shake(self._handshake, event.data, out)
            elif self._tls is None:
                self.inbox.append(event.data)
        elif isinstance(event, events.ConnectionClosed):
            if self._handshake is not None:
                self._handshake.failed()
                self._fail(CLOSED, out)
            else:
                self._end()
        elif isinstance(event, events.OpenConnectionCompleted):
            self._connected(event.reply, out)
        return out

    def with_rest(self, data: bytes) -> bytes:
        """Return bytes out of the inbox with those that came behind them."""
        pieces, inbox = [data], self.inbox
        while inbox and isinstance(following := inbox[0], bytes):
            pieces.append(following)
            inbox.popleft()
        return data if len(pieces) == 1 else b"".join(pieces)

    def send(self, data: bytes) -> Iterable[commands.Command]:
        """Send bytes, encrypted if the connection has TLS."""
        if self._records is None:
            return (commands.SendData(self.server, data),) if self._tls is None else ()
        return (commands.SendData(self.server, self._records.encrypt(data)),)

    def end_sending(self) -> Iterator[commands.Command]:
        """Close our half; with TLS do nothing, as only the whole connection is closed."""
        if self._tls is None:
            yield commands.CloseTcpConnection(self.server, half_close=True)

    def close(self) -> Iterator[commands.Command]:
        """Close the connection; what arrives afterwards is ignored."""
        self.is_open = False
        yield commands.CloseConnection(self.server)

    # --- TLS

    def _connected(self, error: DialError | str | None, out: list[commands.Command]) -> None:
        if error is not None or self._tls is None:
            self.inbox.append(UpstreamOpened(error))
            return
        self.server.tls = True
        # The name that is verified is the one that was judged, never the client's spelling.
        self.server.sni = self.target.host
        self.server.alpn_offers = self._alpn
        self._handshake = self._tls.begin(self.target, self._alpn)
        self._shake(self._handshake, b"", out)

    def _shake(
        self, handshake: UpstreamHandshake, data: bytes, out: list[commands.Command]
    ) -> None:
        if len(self._received) < _KEPT_HANDSHAKE:
            self._received += data
        records = handshake.records
        try:
            done = handshake.shake(data)
        except ssl.SSLError as error:
            self._send(records.take(), out)  # an alert
            self._fail(words_of(error), out)
            return
        self._send(records.take(), out)
        if not done:
            return
        self._handshake, self._received = None, bytearray()
        self._records = records
        self.server.alpn = records.alpn
        self.inbox.append(UpstreamOpened(None))
        self._decrypt(records, b"", out)

    def _fail(self, error: str, out: list[commands.Command]) -> None:
        asked = asks_for_certificate(self._received)
        self._handshake, self._received = None, bytearray()
        self._has_ended = True
        self.server.error = error
        out.append(commands.CloseConnection(self.server))
        self.inbox.append(UpstreamOpened(failed_handshake(error, self.target, asked=asked)))

    def _decrypt(self, records: TlsRecords, data: bytes, out: list[commands.Command]) -> None:
        if len(data) <= PIECE:
            self._decrypt_piece(records, data, out)
            return
        view = memoryview(data)
        for at in range(0, len(data), PIECE):
            self._decrypt_piece(records, view[at : at + PIECE], out)

    def _decrypt_piece(
        self, records: TlsRecords, data: bytes | memoryview, out: list[commands.Command]
    ) -> None:
        if self._has_ended:
            return
        got = records.decrypt(data)
        self._send(records.take(), out)
        if got.plain:
            self.inbox.append(got.plain)
        server = self.server
        if not got.ended or not server.state & ConnectionState.CAN_READ:
            return
        # Once broken, TLS carries nothing in the other direction either.
        is_broken = got.error is not None
        if is_broken:
            server.error = got.error
        server.state &= ConnectionState.CLOSED if is_broken else ConnectionState.CAN_WRITE
        self._end()
        if is_broken:
            out.append(commands.CloseConnection(server))

    def _end(self) -> None:
        """Note the end once: after a close_notify comes that of the connection."""
        if not self._has_ended:
            self._has_ended = True
            self.inbox.append(_UPSTREAM_ENDED)

    def _send(self, data: bytes, out: list[commands.Command]) -> None:
        if data:
            out.append(commands.SendData(self.server, data))
