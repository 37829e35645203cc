"""Accepts clients: a mitmproxy proxy mode of ours, which admits, sheds, and starts connections.

A socket is bound before mitmproxy is even built, so that a busy port is one clear error and
not a line in a log. Who is not in the client networks is refused before a byte is read.
"""

import asyncio
import logging
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal, cast

from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.proxy import layer, mode_specs
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.mode_servers import AsyncioServerInstance

from claude_proxy.connection import ClientConnection, Services
from claude_proxy.denial import Refusal, denial
from claude_proxy.errors import ConfigError
from claude_proxy.events import Notice, Phase
from claude_proxy.gate import Origin
from claude_proxy.layers.signals import Waiting
from claude_proxy.policy import Reason
from claude_proxy.settings import Address, Network

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_BACKLOG = 4096
_SHED_SHARE = 20  # one in this many connections is let go at a time, the longest idle first
_SHED_PAUSE_S = 0.2
_FULL = Refusal(503, "too-many-connections", "The proxy has no room for another connection.")


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that clients come in by, and who may."""

    name: str  # as the audit log has it
    socket: socket.socket
    clients: tuple[Network, ...]


def bind_all(host: str, port: int, count: int) -> list[socket.socket]:
    """Return `count` sockets listening on one address; ConfigError if it cannot be had."""
    first = bind(host, port)
    if count == 1:
        return [first]
    # Sharing lets anybody of the same user in, another proxy too: so the port must be free
    # without it first.
    port = first.getsockname()[1]
    first.close()
    return [bind(host, port, shared=True) for _ in range(count)]


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a listening socket; ConfigError if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Naming the protocol matters: asyncio switches Nagle off only for IPPROTO_TCP sockets.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {(error.strerror or str(error)).lower()}",
            where="--host, --port",
            mend="stop what listens there, or choose another port with --port",
        ) from error
    return sock


class Listeners(Proxyserver):
    """mitmproxy's server addon, with our listeners in the place of its own."""

    name = "proxyserver"  # where mitmproxy looks for it

    def __init__(
        self, listeners: list[Listener], services: Services, tell: "Callable[[Notice], None]"
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.listeners = {listener.name: listener for listener in listeners}
        self.services = services
        self._tell = tell
        self._shed_at = 0.0
        self._said_full = False

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


@dataclass(frozen=True)
class ClaudeMode(mode_specs.ProxyMode):
    """The mode "claude:NAME": the listener of that name."""

    description = "claude-proxy"
    transport_protocol: Literal["tcp"] = "tcp"

    def __post_init__(self) -> None:
        """Have a name."""
        if not self.data:
            raise ValueError("a listener has a name")


class ClaudeInstance(AsyncioServerInstance[ClaudeMode]):
    """One running listener."""

    def make_top_layer(self, context: Context) -> layer.Layer:
        """Never asked: connections are started here and not by mitmproxy."""
        raise NotImplementedError

    async def _start(self) -> None:
        manager = cast("Listeners", self.manager)
        listener = manager.listeners[self.mode.data]
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _Arrival(manager, listener, self.mode), sock=listener.socket, backlog=_BACKLOG
        )
        self._servers = [server]


class _Arrival(asyncio.Protocol):
    """A connection of which only the peer's address is known yet."""

    def __init__(self, manager: Listeners, listener: Listener, mode: ClaudeMode) -> None:
        self._manager = manager
        self._listener = listener
        self._mode = mode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        try:
            self._let_in(transport)
        except Exception:  # law 8; and uvloop would keep half a connection for ever
            logger.exception("a client could not be let in")
            transport.abort()

    def _let_in(self, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        if not peer:  # it was gone before it was accepted
            transport.abort()
            return
        shown = f"{peer[0]}:{peer[1]}" if ":" not in peer[0] else f"[{peer[0]}]:{peer[1]}"
        if not self._admits(ip_address(peer[0].partition("%")[0])):
            self._turn_away(transport, shown)
            return
        if not self._manager.make_room():
            transport.write(_FULL.http1(close=True))
            transport.close()
            return
        client = Client(
            peername=peer[:2],
            sockname=transport.get_extra_info("sockname")[:2],
            proxy_mode=self._mode,
            state=ConnectionState.OPEN,
        )
        connection = ClientConnection(self._manager.services, client, self._listener.name, shown)
        transport.set_protocol(connection.endpoint)
        connection.endpoint.connection_made(transport)
        connection.start()

    def _admits(self, address: Address) -> bool:
        mapped = address.ipv4_mapped if address.version == 6 else None  # noqa: PLR2004
        known = mapped or address
        return any(known in network for network in self._listener.clients)

    def _turn_away(self, transport: asyncio.Transport, shown: str) -> None:
        origin = Origin(0, shown, self._listener.name)
        gate = self._manager.services.gate
        passage = gate.refuse(origin, Phase.CLIENT, Reason.CLIENT_NOT_ALLOWED, "")
        gate.end(passage)
        transport.write(denial(Reason.CLIENT_NOT_ALLOWED.value, "", None).http1(close=True))
        transport.close()
