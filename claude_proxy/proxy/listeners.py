"""Listeners: accept clients, refuse those that are not allowed, and start their connections.

They are an addon of mitmproxy's master, and not one of its proxy modes: those bring along HTTP and
QUIC of their own, which nothing here may ever run. Law kept: default-deny. A client outside the
allowed networks of a TCP listener, or a user who may not use a Unix socket, is refused before a
byte is read, and the refusal is recorded.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, cast

from mitmproxy.connection import ConnectionState

from claude_proxy.config.settings import ClientCredentials, RunIdentity
from claude_proxy.events import Notice, Phase
from claude_proxy.policy.reason import Reason
from claude_proxy.proxy.connection import ClientConnection, Services
from claude_proxy.proxy.gate import ClientInfo
from claude_proxy.proxy.layers.connection_records import ClientRecord
from claude_proxy.proxy.layers.session import NO_ADDRESS
from claude_proxy.proxy.responses import Refusal, denial
from claude_proxy.proxy.shares import CONNECTIONS, SOCKETS, Share
from claude_proxy.system import descriptors
from claude_proxy.system.peer_credentials import peer_of
from claude_proxy.system.unix_socket import BACKLOG
from claude_proxy.wire.address import Address, Network

logger = logging.getLogger(__name__)

_REFUSAL_S = 5.0
_REFUSALS = 64
_REMEMBERED = 256  # addresses of clients, which are parsed once
_FULL = Refusal(503, "too-many-connections", "The proxy has no room for another connection.")
_NOT_ALLOWED = denial(Reason.CLIENT_NOT_ALLOWED.value, "", None).http1(close=True)


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, and the clients that may use it."""

    name: str  # in the audit log
    socket: socket.socket
    clients: tuple[Network, ...] = ()  # who may use TCP
    uids: frozenset[int] = frozenset()  # who may use a Unix socket
    credentials: ClientCredentials | None = None  # what TCP clients must present
    on_first_byte: Callable[[], None] | None = None  # called when the first client sends
    services: Services | None = None  # used by its connections; None: those of the proxy
    run: RunIdentity | None = None  # the run that it serves
    refusal: bytes = _NOT_ALLOWED  # sent to a client that may not use it

    @property
    def is_unix(self) -> bool:
        """Whether the kernel identifies its clients."""
        return self.socket.family == socket.AF_UNIX

    def admits(self, address: Address) -> bool:
        """Tell whether a TCP client of this address may use it."""
        return any(address in network for network in self.clients)


class Listeners:
    """The addon that runs every listener."""

    name = "listeners"

    def __init__(
        self, listeners: Sequence[Listener], services: Services, notify: Callable[[Notice], None]
    ) -> None:
        self.listeners = tuple(listeners)
        self.services = services
        self._servers: list[asyncio.Server] = []
        self._fault: Exception | None = None
        self._settled = asyncio.Event()
        self._notify = notify
        self.refused: set[_RefusedClient] = set()  # whose responses are still being sent
        services.shares.report = self._report
        services.shares.other_files = descriptors.lowest_free()

    async def running(self) -> None:
        """Accept clients; mitmproxy calls this hook once its master runs."""
        try:
            for listener in self.listeners:
                self._servers.append(await self._listen(listener))
        except Exception as error:  # noqa: BLE001 - mitmproxy would only log it: see `accepting`
            self._fault = error
        self._settled.set()

    async def accepting(self) -> None:
        """Wait until every listener accepts; raise the error of one that cannot."""
        await self._settled.wait()
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """Accept no more clients."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    async def _listen(self, listener: Listener) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        is_unix, sockname = listener.is_unix, _sockname_of(listener)

        def admission() -> _Admission:
            return _Admission(self, listener, sockname, is_unix=is_unix)

        if not listener.is_unix:
            return await loop.create_server(admission, sock=listener.socket, backlog=BACKLOG)
        # Since Python 3.13 the loop would remove the socket's file, which may not be ours.
        keep: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        return await loop.create_unix_server(
            admission, sock=listener.socket, backlog=BACKLOG, **keep
        )

    def services_of(self, listener: Listener) -> Services:
        """Return the services that the connections of a listener use."""
        return listener.services or self.services

    def make_room(self, share: Share) -> bool:
        """Tell whether a client may have a connection more.

        If the limit is reached, one that nobody would miss or that has more than others is closed.
        """
        connections, limit = self.services.connections, self.services.limits.connections
        shares = self.services.shares
        if len(connections) >= limit:
            problem = f"the limit of {limit} open connections is reached"
            shares.make_room(CONNECTIONS, share, problem)
            return len(connections) < limit
        if not descriptors.is_room_for_client(shares.open_sockets, shares.other_files):
            problem = f"nearly all of the {descriptors.limit()} files that may be open are open"
            return shares.make_room(SOCKETS, share, problem)
        return True

    def _report(self, text: str) -> None:
        logger.warning("%s", text)
        self._notify(Notice(0, "limit", text))


class _Admission(asyncio.Protocol):
    """Admits or refuses a new connection, of which only the peer is known."""

    def __init__(
        self,
        manager: Listeners,
        listener: Listener,
        sockname: tuple[str, int] | None,
        *,
        is_unix: bool,
    ) -> None:
        self._manager = manager
        self._listener = listener
        self._sockname = sockname
        self._is_unix = is_unix

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        self._manager.services.shares.turns.accepted()
        try:
            if self._is_unix:
                self._admit_process(transport)
            else:
                self._admit_address(transport)
        except Exception:  # fail closed; uvloop would also keep the connection half open forever
            logger.exception("a client could not be admitted")
            transport.abort()

    def _admit_address(self, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        if not peer:  # it left before it was accepted
            transport.abort()
            return
        shown = f"{peer[0]}:{peer[1]}" if ":" not in peer[0] else f"[{peer[0]}]:{peer[1]}"
        address = _address_of(peer[0])
        if not self._listener.admits(address):
            self._refuse(transport, shown)
            return
        sockname = self._sockname or transport.get_extra_info("sockname")[:2]
        self._admit(transport, address, shown, peer[:2], sockname, local=address.is_loopback)

    def _admit_process(self, transport: asyncio.Transport) -> None:
        peer = peer_of(transport.get_extra_info("socket"))
        if peer.uid not in self._listener.uids:
            self._refuse(transport, str(peer))
            return
        client = (peer.uid, peer.pid)
        self._admit(transport, client, str(peer), NO_ADDRESS, NO_ADDRESS, local=True)

    def _admit(  # noqa: PLR0913 - facts about the client
        self,
        transport: asyncio.Transport,
        client_key: Hashable,
        shown: str,
        peername: tuple[str, int],
        sockname: tuple[str, int],
        *,
        local: bool,
    ) -> None:
        shares = self._manager.services.shares
        share = shares.of(client_key)
        if not self._manager.make_room(share):
            shares.release(share)
            transport.write(_FULL.http1(close=True))
            transport.close()
            return
        share.turns.begin()
        client = ClientRecord(
            peername=peername,
            sockname=sockname,
            state=ConnectionState.OPEN,
        )
        listener = self._listener
        connection = ClientConnection(
            self._manager.services_of(listener),
            client,
            listener.name,
            shown,
            local=local,
            credentials=listener.credentials,
            run=listener.run,
            share=share,
        )
        endpoint = connection.endpoint
        on_first_byte = listener.on_first_byte
        transport.set_protocol(
            endpoint
            if on_first_byte is None
            else _FirstByteWatcher(endpoint, transport, on_first_byte)
        )
        endpoint.connection_made(transport)
        connection.start()
        share.turns.end()

    def _refuse(self, transport: asyncio.Transport, shown: str) -> None:
        client = ClientInfo(0, shown, self._listener.name)
        gate = self._manager.services_of(self._listener).gate
        gate.end(gate.refuse(client, Phase.CLIENT, Reason.CLIENT_NOT_ALLOWED, ""))
        refused = _RefusedClient(transport, self._manager.refused)
        transport.set_protocol(refused)
        refused.send(self._listener.refusal)


class _RefusedClient(asyncio.Protocol):
    """The connection of a refused client, open until the client has read the response.

    If it were closed at once, many clients would report that there is no server (over a Unix socket
    curl could not even connect); and closing it with unread bytes would reset it.
    """

    def __init__(self, transport: asyncio.Transport, refused: set["_RefusedClient"]) -> None:
        self._transport = transport
        self._refused = refused
        self._timer = asyncio.get_running_loop().call_later(_REFUSAL_S, transport.abort)

    def send(self, response: bytes) -> None:
        self._transport.write(response)
        if len(self._refused) < _REFUSALS:
            self._refused.add(self)
            self._transport.write_eof()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it ended
        self._timer.cancel()
        self._refused.discard(self)


class _FirstByteWatcher(asyncio.Protocol):
    """A client's connection up to its first byte, which a mere probe of the socket never sends."""

    def __init__(
        self,
        inner: asyncio.Protocol,
        transport: asyncio.Transport,
        on_first_byte: Callable[[], None],
    ) -> None:
        self._inner = inner
        self._transport = transport
        self._on_first_byte = on_first_byte

    def data_received(self, data: bytes) -> None:
        self._transport.set_protocol(self._inner)
        self._on_first_byte()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


def _sockname_of(listener: Listener) -> tuple[str, int] | None:
    """Return the address that every client connects to; None if each has to be asked for."""
    if listener.is_unix:
        return NO_ADDRESS
    name = listener.socket.getsockname()[:2]
    return None if _address_of(name[0]).is_unspecified else name


@lru_cache(maxsize=_REMEMBERED)
def _address_of(host: str) -> Address:
    return _unmapped(ip_address(host.partition("%")[0]))


def _unmapped(address: Address) -> Address:
    mapped = address.ipv4_mapped if address.version == 6 else None  # noqa: PLR2004
    return mapped or address
