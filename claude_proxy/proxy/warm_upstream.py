"""A warm upstream connection: dialled and verified, and no byte of a request sent until it is used.

Law kept: judged is dialled. Its addresses were judged for the dial, and are judged again when it is
used. Fail closed: one whose upstream speaks, closes or fails meanwhile is closed, and who needs
one dials.
"""

import asyncio
import contextlib
import logging
import math
import select
import socket
from collections import deque
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final, Protocol

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events

from claude_proxy.proxy.dialer import Dialled
from claude_proxy.proxy.endpoint import Endpoint
from claude_proxy.proxy.layers.upstream import (
    UpstreamConnection,
    UpstreamEnded,
    UpstreamEvent,
    UpstreamOpened,
)
from claude_proxy.system import own_addresses
from claude_proxy.system.tcp_acknowledged import acknowledged
from claude_proxy.wire.address import Address

logger = logging.getLogger(__name__)

# An origin of HTTP/2 sends its settings unasked (RFC 9113, section 3.4): some dozens of bytes.
_SETTINGS_LIMIT: Final = 4 * 1024
# Routers forget a connection that is silent. The probes keep it known, and tell if it is gone.
_PROBES: Final = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 2))
# Linux tells with it that a peer has closed its half.
_PEER_CLOSED: Final = getattr(select, "POLLRDHUP", 0)


class Keeper(Protocol):
    """The keeper of warm connections."""

    def count_socket(self, change: int) -> None:
        """Count a socket that was opened (1) or closed (-1)."""

    def gone(self, warm: "WarmUpstream") -> None:
        """Forget a connection that is closed, or will be."""


class WarmUpstream:
    """One connection, from its dial until it is handed over or closed."""

    def __init__(self, keeper: Keeper, upstream: UpstreamConnection) -> None:
        self._keeper = keeper
        self.upstream = upstream
        self.judged: list[Address] = []  # what the target resolved to
        self.is_ready = False
        self.valid_until = math.inf  # its certificate, in seconds since the epoch
        self.is_doubtful = False  # the next one would go the same way
        self.has_ended = False  # by the upstream, in silence
        self._endpoint: Endpoint | None = None
        self._is_gone = False
        self._queue: deque[events.Event] = deque()
        self._is_busy = False
        self._opening: commands.OpenConnection | None = None
        self._early: list[UpstreamEvent] = []  # an origin's settings
        self._early_bytes = 0

    async def connect(self, dialled: Dialled) -> None:
        """Shake hands over a connected socket; `is_ready` tells when that is done."""
        server = self.upstream.server
        endpoint = Endpoint(self, server, dialled.early)
        _probe(dialled.socket)
        server.peername = (dialled.peer.host, dialled.peer.port)
        self._execute_all(self.upstream.open())
        opening = self._opening
        if opening is None:
            dialled.socket.close()
            self.close()
            return
        server.state = ConnectionState.OPEN
        self._endpoint = endpoint
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: endpoint, sock=dialled.socket)
        except BaseException:
            dialled.socket.close()
            self.close()
            raise
        if not self._is_gone:
            self._process(events.OpenConnectionCompleted(opening, None))
        elif endpoint.transport is not None:
            endpoint.transport.abort()  # it was closed before it had a transport

    def hand_over(self) -> tuple[UpstreamConnection, Endpoint] | None:
        """Give the connection away, open; None, and it is closed, if there is any doubt about it.

        What an origin of HTTP/2 has sent is in its inbox, behind the news that it is open.
        """
        endpoint, upstream = self._endpoint, self.upstream
        sock = None if endpoint is None else _socket_of(endpoint)
        if endpoint is None or sock is None or not self.is_ready or not _calmed(sock):
            self.close()
        if endpoint is None or sock is None or self._is_gone:
            return None
        self._is_gone = True  # here
        upstream.is_warm = True
        upstream.server.acknowledged = acknowledged(sock)
        upstream.inbox.extend((UpstreamOpened(None), *self._early))
        return upstream, endpoint

    def close(self) -> None:
        """Close it."""
        if self._is_gone:
            return
        self._is_gone = True
        self.upstream.server.state = ConnectionState.CLOSED
        if self._endpoint is not None and self._endpoint.transport is not None:
            self._endpoint.transport.abort()
        self._keeper.gone(self)

    # --- from the transport, see `EndpointOwner`

    def received(self, _: Endpoint, data: bytes) -> None:
        """Handle bytes of the handshake, and what comes after it."""
        if not self._is_gone:
            self._process(events.DataReceived(self.upstream.server, data))

    def ended(self, _: Endpoint) -> None:
        """Close it: an upstream that takes nothing more is of no use."""
        self.has_ended = True
        self.close()

    def lost(self, _: Endpoint) -> None:
        """Forget it."""
        self._endpoint = None
        self.has_ended = True
        self.close()

    def count_socket(self, change: int) -> None:
        """Count its socket."""
        self._keeper.count_socket(change)

    def balance(self) -> None:
        """Do nothing: nothing is passed on."""

    # --- to and from the layers

    def _process(self, event: events.Event) -> None:
        self._queue.append(event)
        if self._is_busy:
            return
        self._is_busy = True
        try:
            while self._queue and not self._is_gone:
                self._execute_all(self.upstream.handle(self._queue.popleft()))
            self._read_inbox()
        except Exception:  # fail closed: who needs one dials, and is told why
            logger.exception("a connection that was kept ready was closed after an internal error")
            self.is_doubtful = True
            self.close()
        finally:
            self._is_busy = False

    def _execute_all(self, several: Iterable[commands.Command]) -> None:
        for command in several:
            if isinstance(command, commands.SendData):
                if self._endpoint is not None and self._endpoint.transport is not None:
                    self._endpoint.transport.write(command.data)
            elif isinstance(command, commands.OpenConnection):
                self._opening = command
            elif not isinstance(command, commands.Log):
                self.is_doubtful = True
                self.close()  # the layer gives it up, or wants what is not to be had here

    def _read_inbox(self) -> None:
        inbox = self.upstream.inbox
        while inbox and not self._is_gone:
            arrival = inbox.popleft()
            if isinstance(arrival, UpstreamOpened) and arrival.error is None:
                self.is_ready = True
                ends = self.upstream.certificate_ends
                self.valid_until = math.inf if ends is None else ends
            elif isinstance(arrival, bytes) and self._may_speak(len(arrival)):
                self._early.append(arrival)
            else:
                self.has_ended = isinstance(arrival, UpstreamEnded)
                self.is_doubtful = not self.has_ended
                self.close()

    def _may_speak(self, size: int) -> bool:
        self._early_bytes += size
        is_http2 = self.upstream.tls and self.upstream.server.alpn == b"h2"
        return self.is_ready and is_http2 and self._early_bytes <= _SETTINGS_LIMIT


def _probe(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES:
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _socket_of(endpoint: Endpoint) -> socket.socket | None:
    """Return the socket of an endpoint that is open."""
    transport = endpoint.transport
    if transport is None or transport.is_closing():
        return None
    sock: socket.socket | None = transport.get_extra_info("socket")
    return sock if sock is not None and sock.fileno() >= 0 else None


def _calmed(sock: socket.socket) -> bool:
    """Tell whether nothing has come that the loop has not read, no end either; probe no more."""
    try:
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN | _PEER_CLOSED)
        # The machine may have left the network through which it was opened.
        local = ip_address(sock.getsockname()[0].partition("%")[0])
        # A network may fail for longer than the probes allow while a response pauses.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
        return not poll.poll(0) and own_addresses.is_known_to_be_own(local)
    except (OSError, ValueError):
        return False
