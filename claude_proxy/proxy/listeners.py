"""Accepts clients: a mitmproxy proxy mode of ours, which admits, sheds, and starts connections.

Whoever is not in the client networks of a TCP listener, or not a user that a Unix socket is for, is
refused before a byte is read, and that is recorded.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal, cast

from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.proxy import layer, mode_specs
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.mode_servers import AsyncioServerInstance

from claude_proxy.config.settings import Address, ClientCredentials, Network
from claude_proxy.events import Notice, Phase
from claude_proxy.policy.reason import Reason
from claude_proxy.proxy.connection import ClientConnection, Services
from claude_proxy.proxy.gate import ClientInfo
from claude_proxy.proxy.layers.session import NO_ADDRESS, Waiting
from claude_proxy.proxy.responses import Refusal, denial
from claude_proxy.system.peer_credentials import peer_of
from claude_proxy.system.unix_socket import BACKLOG

logger = logging.getLogger(__name__)

_SHED_SHARE = 20  # one in this many connections is let go at a time, the longest idle first
_SHED_PAUSE_S = 0.2
_FAREWELL_S = 5.0
_FAREWELLS = 64
_FULL = Refusal(503, "too-many-connections", "The proxy has no room for another connection.")
_NOT_ALLOWED = denial(Reason.CLIENT_NOT_ALLOWED.value, "", None).http1(close=True)


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that clients come in by, and who may."""

    name: str  # as the audit log has it
    socket: socket.socket
    clients: tuple[Network, ...] = ()  # who may use TCP
    uids: frozenset[int] = frozenset()  # who may use a Unix socket
    credentials: ClientCredentials | None = None  # what TCP clients must present
    entered: Callable[[], None] | None = None  # called once a client has said something
    services: Services | None = None  # of its own connections; None: as all others have them
    stranger: bytes = _NOT_ALLOWED  # what is said to whoever may not use it

    @property
    def is_unix(self) -> bool:
        """Whether the kernel tells who its clients are."""
        return self.socket.family == socket.AF_UNIX


class Listeners(Proxyserver):
    """mitmproxy's server addon, with our listeners in the place of its own."""

    name = "proxyserver"  # where mitmproxy looks for it

    def __init__(
        self, listeners: list[Listener], services: Services, tell: Callable[[Notice], None]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.listeners = {mode_of(at): listener for at, listener in enumerate(listeners)}
        self.fault: Exception | None = None
        self._awaited = len(listeners)
        self._settled = asyncio.Event()
        self.services = services
        self._tell = tell
        self.leaving: set[_RefusedClient] = set()  # strangers who are hearing why
        self._shed_at = 0.0
        self._said_full = False

    @property
    def modes(self) -> list[str]:
        """What mitmproxy is told to listen by: one mode for each listener."""
        return list(self.listeners)

    async def accepting(self) -> None:
        """Wait until every listener accepts; raise what keeps one of them from it."""
        await self._settled.wait()
        if self.fault is not None:
            raise self.fault

    def settle(self, fault: Exception | None) -> None:
        """Note that one listener accepts, or why it does not: mitmproxy would only log that."""
        self.fault = self.fault or fault
        self._awaited -= 1
        if self._awaited == 0 or fault is not None:
            self._settled.set()

    def services_of(self, listener: Listener) -> Services:
        """Return what the connections of a listener share."""
        return listener.services or self.services

    def make_room(self) -> bool:
        """Tell whether another connection may be begun; let idle ones go if it gets tight."""
        connections, limit = self.services.connections, self.services.limits.connections
        if len(connections) < limit:
            self._said_full = False
            return True
        now = asyncio.get_running_loop().time()
        if now - self._shed_at > _SHED_PAUSE_S:
            self._shed_at = now
            idle = [
                found
                for found in connections
                if found.session.waiting is not Waiting.EXCHANGE and found.idle
            ]
            idle.sort(key=lambda found: found.active_at)
            for connection in idle[: max(1, limit // _SHED_SHARE)]:
                connection.abort()
            if not self._said_full:
                self._said_full = True
                text = f"{limit} connections are open, as many as may be; idle ones are closed"
                logger.warning("%s", text)
                self._tell(Notice(0, "limit", text))
        return len(connections) < limit


def mode_of(number: int) -> str:
    """Return the mode of one listener; its name would not do, as a path may hold anything."""
    return f"listener:{number}"


@dataclass(frozen=True)
class ListenerMode(mode_specs.ProxyMode):
    """The mode "listener:NUMBER": the listener of that number."""

    description = "claude-proxy"
    default_port = None  # else two of them seem to listen on the same one
    transport_protocol: Literal["tcp"] = "tcp"

    def __post_init__(self) -> None:
        """Have a number."""
        if not self.data.isdecimal():
            raise ValueError("a listener has a number")


class ListenerInstance(AsyncioServerInstance[ListenerMode]):
    """One running listener."""

    @property
    def listen_addrs(self) -> tuple[Any, ...]:
        """None: mitmproxy would take the path of a Unix socket for a host and a port."""
        return ()

    def make_top_layer(self, context: Context) -> layer.Layer:
        """Never asked: connections are started here and not by mitmproxy."""
        raise NotImplementedError

    async def _start(self) -> None:
        manager = cast("Listeners", self.manager)
        try:
            self._servers = [await self._listen(manager)]
        except Exception as error:
            manager.settle(error)
            raise
        manager.settle(None)

    async def _listen(self, manager: Listeners) -> asyncio.Server:
        listener = manager.listeners[self.mode.full_spec]
        loop = asyncio.get_running_loop()

        def arrive() -> _Admission:
            return _Admission(manager, listener, self.mode)

        if not listener.is_unix:
            return await loop.create_server(arrive, sock=listener.socket, backlog=BACKLOG)
        # Since Python 3.13 the loop would remove the socket's file, which may not be ours.
        keep: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        return await loop.create_unix_server(arrive, sock=listener.socket, backlog=BACKLOG, **keep)


class _Admission(asyncio.Protocol):
    """A connection of which only the peer is known yet."""

    def __init__(self, manager: Listeners, listener: Listener, mode: ListenerMode) -> None:
        self._manager = manager
        self._listener = listener
        self._mode = mode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        try:
            if self._listener.is_unix:
                self._let_in_process(transport)
            else:
                self._let_in_address(transport)
        except Exception:  # law 8; and uvloop would keep half a connection for ever
            logger.exception("a client could not be let in")
            transport.abort()

    def _let_in_address(self, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        if not peer:  # it was gone before it was accepted
            transport.abort()
            return
        shown = f"{peer[0]}:{peer[1]}" if ":" not in peer[0] else f"[{peer[0]}]:{peer[1]}"
        address = _inner(ip_address(peer[0].partition("%")[0]))
        if not any(address in network for network in self._listener.clients):
            self._turn_away(transport, shown)
            return
        sockname = transport.get_extra_info("sockname")
        self._let_in(transport, shown, peer[:2], sockname[:2], local=address.is_loopback)

    def _let_in_process(self, transport: asyncio.Transport) -> None:
        peer = peer_of(transport.get_extra_info("socket"))
        if peer.uid not in self._listener.uids:
            self._turn_away(transport, str(peer))
            return
        self._let_in(transport, str(peer), NO_ADDRESS, NO_ADDRESS, local=True)

    def _let_in(
        self,
        transport: asyncio.Transport,
        shown: str,
        peername: tuple[str, int],
        sockname: tuple[str, int],
        *,
        local: bool,
    ) -> None:
        if not self._manager.make_room():
            transport.write(_FULL.http1(close=True))
            transport.close()
            return
        client = Client(
            peername=peername,
            sockname=sockname,
            proxy_mode=self._mode,
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
        )
        endpoint = connection.endpoint
        entered = listener.entered
        transport.set_protocol(
            endpoint if entered is None else _FirstByteWatcher(endpoint, transport, entered)
        )
        endpoint.connection_made(transport)
        connection.start()

    def _turn_away(self, transport: asyncio.Transport, shown: str) -> None:
        origin = ClientInfo(0, shown, self._listener.name)
        gate = self._manager.services_of(self._listener).gate
        passage = gate.refuse(origin, Phase.CLIENT, Reason.CLIENT_NOT_ALLOWED, "")
        gate.end(passage)
        farewell = _RefusedClient(transport, self._manager.leaving)
        transport.set_protocol(farewell)
        farewell.say(self._listener.stranger)


class _RefusedClient(asyncio.Protocol):
    """A stranger's connection for as long as it takes to hear why.

    One that is closed at once looks to many clients as if there were nobody (by a Unix socket curl
    then cannot even connect), and one with unread bytes is reset.
    """

    def __init__(self, transport: asyncio.Transport, leaving: set["_RefusedClient"]) -> None:
        self._transport = transport
        self._leaving = leaving
        self._timer = asyncio.get_running_loop().call_later(_FAREWELL_S, transport.abort)

    def say(self, words: bytes) -> None:
        self._transport.write(words)
        if len(self._leaving) < _FAREWELLS:
            self._leaving.add(self)
            self._transport.write_eof()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - gone is gone
        self._timer.cancel()
        self._leaving.discard(self)


class _FirstByteWatcher(asyncio.Protocol):
    """A client's connection up to its first byte, which tells it from a mere look at the socket."""

    def __init__(
        self, inner: asyncio.Protocol, transport: asyncio.Transport, entered: Callable[[], None]
    ) -> None:
        self._inner = inner
        self._transport = transport
        self._entered = entered

    def data_received(self, data: bytes) -> None:
        self._transport.set_protocol(self._inner)
        self._entered()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


def _inner(address: Address) -> Address:
    mapped = address.ipv4_mapped if address.version == 6 else None  # noqa: PLR2004
    return mapped or address
