"""Endpoint: the asyncio transport of a client, or of an upstream of its connection."""

import asyncio
import contextlib
import os
import socket
import struct
from typing import Protocol, cast, override

from mitmproxy.connection import Connection

from claude_proxy.proxy.layers.upstream import UpstreamServer
from claude_proxy.system.tcp_acknowledged import acknowledged

# Most bytes in a transport's write buffer before its source is no longer read.
_HIGH_WATER = 256 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, with a timeout of zero


class EndpointOwner(Protocol):
    """The connection that an endpoint belongs to."""

    def received(self, endpoint: "Endpoint", data: bytes) -> None:
        """Handle bytes from the peer."""

    def ended(self, endpoint: "Endpoint") -> None:
        """Handle the peer's end of stream."""

    def lost(self, endpoint: "Endpoint") -> None:
        """Handle the loss of the transport."""

    def count_socket(self, change: int) -> None:
        """Count a socket that was opened (1) or closed (-1)."""

    def balance(self) -> None:
        """Pause or resume reading after a write buffer has filled or drained."""


class Endpoint(asyncio.Protocol):
    """The asyncio protocol of one transport; passes everything on to its owner."""

    __slots__ = (
        "connection",
        "early",
        "is_congested",
        "is_held",
        "is_paused",
        "owner",
        "transport",
    )

    def __init__(self, owner: EndpointOwner, connection: Connection, early: bytes = b"") -> None:
        self.owner = owner
        self.connection = connection
        self.early = early  # bytes of the peer that were read before there was a transport
        self.transport: asyncio.Transport | None = None
        self.is_held = False  # a layer asked not to read from it
        self.is_congested = False  # its write buffer is full
        self.is_paused = False  # it is not read from

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)
        self.owner.count_socket(1)
        if self.early:
            early, self.early = self.early, b""
            self.owner.received(self, early)

    @override
    def data_received(self, data: bytes) -> None:
        self.owner.received(self, data)

    @override
    def eof_received(self) -> bool:
        self._note_untouched()
        self.owner.ended(self)
        return True  # a half-closed connection may still be written to

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._note_untouched()
        if exc is not None and isinstance(self.connection, UpstreamServer):
            self._read_rest()
            # A response that ends with the connection is incomplete after a reset, so its reader
            # must know.
            self.connection.error = type(exc).__name__
        self.transport = None  # the owner may handle what came before later, and write then
        self.owner.count_socket(-1)
        self.owner.lost(self)

    def _note_untouched(self) -> None:
        """Note of an upstream that ends whether any of a request has reached its machine."""
        server, transport = self.connection, self.transport
        if isinstance(server, UpstreamServer) and server.acknowledged is not None:
            sock = None if transport is None else transport.get_extra_info("socket")
            now = None if sock is None else acknowledged(sock)
            server.is_untouched = now == server.acknowledged

    def _read_rest(self) -> None:
        """Read what an upstream sent before it reset the connection.

        One that answers early, and closes with a part of the request unread, resets. Where it is
        our next write that fails, its answer still waits in the kernel.
        """
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is None:
            return
        rest = bytearray()
        with contextlib.suppress(OSError):
            while len(rest) < _HIGH_WATER and (data := os.read(sock.fileno(), _HIGH_WATER)):
                rest += data
        if rest:
            self.owner.received(self, bytes(rest))

    @override
    def pause_writing(self) -> None:
        self.is_congested = True
        self.owner.balance()

    @override
    def resume_writing(self) -> None:
        self.is_congested = False
        self.owner.balance()

    def pause(self, *, pause: bool) -> None:
        """Stop or resume reading."""
        transport = self.transport
        if pause != self.is_paused and transport is not None and not transport.is_closing():
            self.is_paused = pause
            if pause:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def was_reset(self) -> bool:
        """Tell whether the peer reset while reading was paused, which no event reports."""
        if not self.is_paused or self.transport is None or self.transport.is_closing():
            return False
        sock = self.transport.get_extra_info("socket")
        return sock is not None and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def reset(self) -> None:
        """Close with a reset; after a plain close the kernel would still try to send its buffer."""
        transport = self.transport
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        if sock is None:
            return  # it has closed meanwhile
        with contextlib.suppress(OSError, ValueError):  # ValueError: the same
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
