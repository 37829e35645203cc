"""Drives one client connection: bytes become events for the layers, their commands become I/O.

This takes the place of mitmproxy's `ProxyConnectionHandler`, whose streams, tasks and locks
cost more than the work itself. It speaks the same sans-io language to the same layers.
Law 8 is kept here for all of them: whatever raises in a layer or a hook ends the connection.
"""

import asyncio
import contextlib
import itertools
import logging
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer

from claude_proxy.config.settings import ClientCredentials, Limits
from claude_proxy.events import Phase
from claude_proxy.policy.reason import Reason
from claude_proxy.proxy.dialer import Dialer, DialError, Failure
from claude_proxy.proxy.gate import ClientInfo, Gate
from claude_proxy.proxy.layers.session import PauseReading, RuleRevoked, Session, TimedOut, Waiting
from claude_proxy.proxy.layers.upstream import UpstreamServer
from claude_proxy.wire.authority import Authority

logger = logging.getLogger(__name__)

type Hook = Callable[..., object]

# What may wait in one transport's buffer before its source is no longer read.
_HIGH_WATER = 256 * 1024
# A denied upload is read on for a while: closing with unread bytes would reset the connection
# and take the answer away from a client that reads only after writing.
_LINGER_S = 10.0
_LINGER_BYTES = 64 * 1024 * 1024

_RESET = struct.pack("ii", 1, 0)  # struct linger: on, for no time

_numbers = itertools.count(time.time_ns())


class TopLayer(Protocol):
    """Makes the first layer of a connection."""

    def __call__(self, context: Context, session: Session) -> Layer:
        """Return the layer that gets the client's first byte."""
        ...


@dataclass(eq=False)
class Services:
    """What every connection of one proxy shares."""

    gate: Gate
    dialer: Dialer
    limits: Limits
    options: Options
    hooks: Mapping[str, tuple[Hook, ...]]
    top_layer: TopLayer
    record_query: bool = False
    connections: set["ClientConnection"] = field(default_factory=set)


class _Endpoint(asyncio.Protocol):
    """One transport of a connection: the client's, or an upstream's."""

    __slots__ = ("congested", "connection", "held", "owner", "paused", "transport")

    def __init__(self, owner: "ClientConnection", connection: Connection) -> None:
        self.owner = owner
        self.connection = connection
        self.transport: asyncio.Transport | None = None
        self.held = False
        self.congested = False
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        self.owner.received(self, data)

    def eof_received(self) -> bool:
        self.owner.ended(self)
        return True  # a half-closed connection may still be written to

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and isinstance(self.connection, UpstreamServer):
            # Whoever reads an answer up to its end is to know that this was not it. Not for
            # mitmproxy's own connections: it would not dial the same address again.
            self.connection.error = type(exc).__name__
        self.owner.lost(self)

    def was_reset(self) -> bool:
        """Tell whether the peer broke off while it was not read from: no event tells of that."""
        if not self.paused or self.transport is None or self.transport.is_closing():
            return False
        sock = self.transport.get_extra_info("socket")
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def pause_writing(self) -> None:
        self.congested = True
        self.owner.balance()

    def resume_writing(self) -> None:
        self.congested = False
        self.owner.balance()


class ClientConnection:
    """One client connection with whatever upstream connections it has opened."""

    def __init__(  # noqa: PLR0913 - what is known of how the client came in
        self,
        services: Services,
        client: Client,
        listener: str,
        shown: str,
        *,
        local: bool = False,
        credentials: ClientCredentials | None = None,
    ) -> None:
        self.services = services
        self.client = client
        number = next(_numbers)
        self.session = Session(
            gate=services.gate,
            client_info=ClientInfo(number, shown, listener),
            head_limit=services.limits.head_bytes,
            record_query=services.record_query,
            local=local,
            credentials=credentials,
        )
        self.context = Context(client, services.options)
        self.layer = services.top_layer(self.context, self.session)
        self.endpoint = _Endpoint(self, client)
        self._endpoints: dict[Connection, _Endpoint] = {client: self.endpoint}
        self._dials: dict[Connection, asyncio.Task[None]] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._queue: deque[events.Event] = deque()
        self._busy = False
        self._gone = False  # the client's layers have been told that it is over
        self._linger_until: float | None = None
        self._lingered = 0
        self._wait_id = 0
        now = asyncio.get_running_loop().time()
        self._waiting_since = now
        self.active_at = now

    def start(self) -> None:
        """Begin, once the client's transport is there."""
        self.services.connections.add(self)
        self.process(events.Start())

    # --- from the transports

    def received(self, endpoint: _Endpoint, data: bytes) -> None:
        """Hand the layers what came in, or throw it away on a connection that is ending."""
        if self._linger_until is not None and endpoint is self.endpoint:
            self._lingered += len(data)
            if self._lingered > _LINGER_BYTES:
                self._abort(endpoint)
            return
        if self._drops_preconnected(endpoint):
            return
        if endpoint is self.endpoint or self.session.waiting is not Waiting.IDLE:
            # An upstream that only answers pings must not keep an idle client for ever.
            self.active_at = asyncio.get_running_loop().time()
        self.process(events.DataReceived(endpoint.connection, data))

    def ended(self, endpoint: _Endpoint) -> None:
        """Note that the peer will send no more; it may still read."""
        connection = endpoint.connection
        if self._linger_until is not None and endpoint is self.endpoint:
            self._close(endpoint)
            return
        if self._drops_preconnected(endpoint):
            return
        if connection.state & ConnectionState.CAN_READ:
            connection.state &= ~ConnectionState.CAN_READ
            self.process(events.ConnectionClosed(connection))

    def lost(self, endpoint: _Endpoint) -> None:
        """Note that the transport is gone, in whichever way."""
        if self._drops_preconnected(endpoint):
            return
        connection = endpoint.connection
        open_before = connection.state
        connection.state = ConnectionState.CLOSED
        self._endpoints.pop(connection, None)
        if endpoint is self.endpoint:
            self._finish()
            return
        if open_before & ConnectionState.CAN_READ:
            self.process(events.ConnectionClosed(connection))
        self.balance()

    def balance(self) -> None:
        """Read from nobody whose bytes could not be passed on (backpressure)."""
        endpoints = self._endpoints.values()
        up = any(endpoint.congested for endpoint in endpoints if endpoint is not self.endpoint)
        for endpoint in endpoints:
            pause = endpoint.held or (up if endpoint is self.endpoint else self.endpoint.congested)
            transport = endpoint.transport
            if pause != endpoint.paused and transport is not None and not transport.is_closing():
                endpoint.paused = pause
                if pause:
                    transport.pause_reading()
                else:
                    transport.resume_reading()

    # --- to and from the layers

    def process(self, event: events.Event) -> None:
        """Give `event` to the layers and carry out what they ask for.

        An event that a command causes waits its turn: layers are generators, which cannot be
        entered twice.
        """
        queue = self._queue
        queue.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while queue:
                for command in self.layer.handle_event(queue.popleft()):
                    self._carry_out(command)
        except Exception as error:  # noqa: BLE001 - law 8: a fault denies
            queue.clear()
            self._fail(error)
        finally:
            self._busy = False

    def _carry_out(self, command: commands.Command) -> None:
        if isinstance(command, commands.SendData):
            endpoint = self._endpoints.get(command.connection)
            if endpoint is not None and endpoint.transport is not None:
                endpoint.transport.write(command.data)
        elif isinstance(command, commands.StartHook):
            for hook in self.services.hooks.get(command.name, ()):
                hook(*command.args())
            if command.blocking:
                self._queue.append(events.HookCompleted(command))
        elif isinstance(command, commands.OpenConnection):
            task = asyncio.get_running_loop().create_task(self._dial(command))
            if not task.done():
                self._dials[command.connection] = task
        elif isinstance(command, commands.CloseConnection):
            half = isinstance(command, commands.CloseTcpConnection) and command.half_close
            (self._half_close if half else self._close_connection)(command.connection)
        else:
            self._carry_out_rest(command)

    def _carry_out_rest(self, command: commands.Command) -> None:
        if isinstance(command, PauseReading):
            if (held := self._endpoints.get(command.connection)) is not None:
                held.held = command.hold
                self.balance()
        elif isinstance(command, commands.RequestWakeup):
            self._wake_later(command)
        elif isinstance(command, commands.Log):
            pass  # mitmproxy's log lines quote what peers sent, bodies and fields too (law 9)
        else:
            raise TypeError(f"a layer asked for {type(command).__name__}, which is unknown here")

    def _wake_later(self, command: commands.RequestWakeup) -> None:
        def wake() -> None:
            self._timers.discard(timer)
            self.process(events.Wakeup(command))

        timer = asyncio.get_running_loop().call_later(command.delay, wake)
        self._timers.add(timer)

    async def _dial(self, command: commands.OpenConnection) -> None:
        server = command.connection
        reply: DialError | None = None
        try:
            await self._connect(server)
        except DialError as error:
            reply = error
        except OSError as error:
            reply = DialError(Failure.UNREACHABLE, f"the connection was lost: {error}")
        except Exception as error:  # noqa: BLE001 - law 8
            self._fail(error)
            return
        finally:
            self._dials.pop(server, None)
        # mitmproxy's layers only ask whether the reply is true and hand it on unchanged.
        self.process(events.OpenConnectionCompleted(command, cast("str | None", reply)))

    async def _connect(self, server: Server) -> None:
        if server.address is None:
            raise DialError(Failure.UNREACHABLE, "no address was given")
        gate, origin = self.session.gate, self.session.client_info
        target = Authority.of(server.address[0], server.address[1])
        decision = gate.dial(origin, target)
        if not decision.allowed:
            raise DialError(Failure.DENIED, "the policy no longer allows this", decision)
        server.timestamp_start = time.time()
        if self._takes_preconnected(server):
            return
        dialled = await self.services.dialer.dial(
            target,
            lambda address: gate.address(origin, target, address),
            tunnel=_is_tunnel(server),
        )
        if self._gone:
            dialled.socket.close()
            raise DialError(Failure.UNREACHABLE, "the client has gone")
        endpoint = _Endpoint(self, server)
        server.peername = (dialled.peer.host, dialled.peer.port)
        server.timestamp_tcp_setup = time.time()
        server.state = ConnectionState.OPEN
        self._endpoints[server] = endpoint
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: endpoint, sock=dialled.socket)
        except BaseException:
            self._endpoints.pop(server, None)
            dialled.socket.close()
            raise
        self.balance()

    def _takes_preconnected(self, server: Server) -> bool:
        """Let `server` have the connection that was opened for the tunnel, if there is one."""
        preconnected, self.session.preconnected = self.session.preconnected, None
        endpoint = None if preconnected is None else self._endpoints.get(preconnected)
        if preconnected is None or endpoint is None:
            return False
        transport = endpoint.transport
        usable = transport is not None and not transport.is_closing()
        same = (preconnected.address, _is_tunnel(preconnected)) == (
            server.address,
            _is_tunnel(server),
        )
        if not usable or not same:
            self._close_connection(preconnected)
            return False
        del self._endpoints[preconnected]
        endpoint.connection = server
        self._endpoints[server] = endpoint
        server.peername, server.state = preconnected.peername, preconnected.state
        server.timestamp_tcp_setup = preconnected.timestamp_tcp_setup
        preconnected.state = ConnectionState.CLOSED
        return True

    def _drops_preconnected(self, endpoint: _Endpoint) -> bool:
        """Let an upstream go that speaks, or leaves, before it was asked; the lane dials anew."""
        preconnected = self.session.preconnected
        if preconnected is None or endpoint.connection is not preconnected:
            return False
        self.session.preconnected = None
        self._close_connection(preconnected)
        return True

    def _half_close(self, connection: Connection) -> None:
        endpoint = self._endpoints.get(connection)
        if endpoint is None or not connection.state & ConnectionState.CAN_WRITE:
            return
        connection.state &= ~ConnectionState.CAN_WRITE
        if endpoint.transport is not None and endpoint.transport.can_write_eof():
            endpoint.transport.write_eof()

    def _close_connection(self, connection: Connection) -> None:
        endpoint = self._endpoints.get(connection)
        could_read = connection.state & ConnectionState.CAN_READ
        connection.state = ConnectionState.CLOSED
        if (dial := self._dials.pop(connection, None)) is not None:
            dial.cancel()
        if endpoint is None:
            return
        if endpoint is not self.endpoint:
            self._endpoints.pop(connection, None)
            self._close(endpoint)
            self.balance()
            return
        if self._gone:
            return  # what is left for the client is on its way, and must not be cut off
        if could_read:
            self._linger()
        else:
            self._close(endpoint)
        self._finish()

    def _linger(self) -> None:
        """Send what is left, end our half, and read on for a moment without listening."""
        transport = self.endpoint.transport
        self._linger_until = asyncio.get_running_loop().time() + _LINGER_S
        self.endpoint.held = False
        if transport is None or transport.is_closing():
            return
        transport.write_eof()
        if self.endpoint.paused:
            self.endpoint.paused = False
            transport.resume_reading()

    def _close(self, endpoint: _Endpoint) -> None:
        transport = endpoint.transport
        if transport is None:
            return
        transport.close()
        # A peer that reads nothing would keep the last bytes, and us, for ever.
        if endpoint is self.endpoint:
            if self._linger_until is None:
                self._linger_until = asyncio.get_running_loop().time() + _LINGER_S
        elif transport.get_write_buffer_size():
            # A client that is gone has broken off what it was sending: there is nothing to finish.
            wait_s = 0 if self._gone else _LINGER_S
            asyncio.get_running_loop().call_later(wait_s, self._abort, endpoint)

    @staticmethod
    def _abort(endpoint: _Endpoint) -> None:
        transport = endpoint.transport
        if transport is None:
            return
        # A reset, as the kernel would go on offering what it has to a peer that takes nothing.
        with contextlib.suppress(OSError):
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()

    def _fail(self, error: Exception) -> None:
        # One line, no traceback: it may hold what a client sent. --verbose shows it.
        logger.error("a connection was closed after a fault (%s)", type(error).__name__)
        logger.debug("the fault", exc_info=error)
        self.abort()

    def abort(self) -> None:
        """End everything at once."""
        for endpoint in list(self._endpoints.values()):
            endpoint.connection.state = ConnectionState.CLOSED
            self._abort(endpoint)
        if not self._gone:
            self._finish()
        # Its place is free from now on, not only once the loop has let the sockets go.
        self.services.connections.discard(self)

    def _finish(self) -> None:
        """Tell the layers that the client is gone and let go of every upstream; once."""
        if self._gone:
            if self.endpoint.connection not in self._endpoints:
                self.services.connections.discard(self)
            return
        self._gone = True
        self.client.state = ConnectionState.CLOSED
        self.process(events.ConnectionClosed(self.client))
        for timer in self._timers:
            timer.cancel()
        for dial in list(self._dials.values()):
            dial.cancel()
        for connection, endpoint in list(self._endpoints.items()):
            if endpoint is not self.endpoint:
                connection.state = ConnectionState.CLOSED
                del self._endpoints[connection]
                self._close(endpoint)
        if self.client not in self._endpoints:
            self.services.connections.discard(self)

    # --- from the proxy as a whole

    def sweep(self, now: float) -> None:
        """End what has waited too long; called about once a second."""
        if self._linger_until is not None:
            if now > self._linger_until:
                self._abort(self.endpoint)
            return
        if self.endpoint.was_reset():
            self._abort(self.endpoint)
            return
        session = self.session
        if session.wait_id != self._wait_id:
            self._wait_id, self._waiting_since = session.wait_id, now
        limits = self.services.limits
        since = self._waiting_since
        match session.waiting:
            case Waiting.HEAD:
                limit = limits.head_timeout_s
            case Waiting.HANDSHAKE:
                limit = limits.handshake_timeout_s
            case Waiting.UPSTREAM:
                limit = limits.connect_timeout_s + limits.handshake_timeout_s
            case Waiting.BODY if session.gate.is_crowded:
                # Whoever sends a byte now and then would keep the room of all.
                limit = limits.head_timeout_s
            case _:
                limit, since = limits.idle_timeout_s, max(self.active_at, self._waiting_since)
        if now - since > limit:
            self.process(TimedOut())
            self._insist()

    def withdraw(self) -> bool:
        """Close a tunnel whose rule is gone; tell whether it was one."""
        session = self.session
        target = (
            session.target
            if session.websocket_request is None
            else session.websocket_request.target
        )
        if target is None or self._gone or self._holds(target):
            return False
        session.gate.refuse(session.client_info, Phase.RELOAD, Reason.RULE_WITHDRAWN, target)
        self.process(RuleRevoked())
        self._insist()
        return True

    def _holds(self, target: Authority) -> bool:
        gate, request = self.session.gate, self.session.websocket_request
        holds = gate.holds(target, passthrough=self.session.passthrough)
        return holds and (request is None or gate.holds_request(request))

    def shut(self) -> None:
        """Take no further request; close now if nothing is running."""
        self.session.closing = True
        if self.idle:
            self._close_connection(self.client)

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost by closing this connection."""
        return self.session.waiting in (Waiting.IDLE, Waiting.HEAD, Waiting.HANDSHAKE)

    def _insist(self) -> None:
        if not self._gone:
            self._close_connection(self.client)


def _is_tunnel(server: Server) -> bool:
    """Tell whether another proxy is to be asked for a tunnel to `server`."""
    return server.tunnel if isinstance(server, UpstreamServer) else True
