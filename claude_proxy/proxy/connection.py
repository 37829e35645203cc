"""Client connection driver: turns received bytes into events for the layers, and commands into I/O.

It replaces mitmproxy's `ProxyConnectionHandler`, whose streams, tasks and locks cost more than the
work itself, and exchanges the same sans-io events and commands with the layers. Law kept: fail
closed. An exception in a layer, a hook or a dial ends the connection. `connection_end` lists all
the ways in which a connection ends.
"""

import asyncio
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer

from claude_proxy.audit.owner import name_of
from claude_proxy.config.settings import ClientCredentials, Limits, RunIdentity
from claude_proxy.events import Phase
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.policy import AddressOwner
from claude_proxy.policy.reason import Reason
from claude_proxy.proxy.apart import Apart, Job
from claude_proxy.proxy.connection_end import EndEvent, EndState, next_state
from claude_proxy.proxy.dialer import Dialer, DialError, Dialled, Failure, no_room
from claude_proxy.proxy.endpoint import Endpoint
from claude_proxy.proxy.gate import Attempt, ClientInfo, Gate
from claude_proxy.proxy.layers.asking import AnswerCame, AwaitAnswer, StopAwaiting
from claude_proxy.proxy.layers.connection_records import LayerContext, can_read
from claude_proxy.proxy.layers.http2_windows import WindowBudget
from claude_proxy.proxy.layers.session import (
    NO_LEAVES,
    SHED,
    ContinueLater,
    PauseReading,
    RanApart,
    RuleRevoked,
    RunApart,
    Session,
    TimedOut,
    TurnCame,
    Waiting,
)
from claude_proxy.proxy.layers.upstream import UpstreamConnection, UpstreamServer
from claude_proxy.proxy.shares import MEMORY, SOCKETS, Share, Shares, Standing
from claude_proxy.proxy.upstream_hints import NO_HINTS, UpstreamHints
from claude_proxy.proxy.upstream_tls import TlsFor, UpstreamTls
from claude_proxy.proxy.warm_keys import Key, Owner, Route
from claude_proxy.proxy.warm_upstreams import Beneficiary, WarmUpstreams
from claude_proxy.system import descriptors
from claude_proxy.system.peer_credentials import is_running
from claude_proxy.system.tcp_peers import program_at
from claude_proxy.trust.leaf_contexts import LeafContexts
from claude_proxy.wire.address import Address
from claude_proxy.wire.authority import Authority

if TYPE_CHECKING:
    # Few proxies ask.
    from claude_proxy.control.asking import Asking
    from claude_proxy.control.questions import Waiter

logger = logging.getLogger(__name__)

# A denied upload is still read for a while: closing with unread bytes would reset the connection
# and take the response away from a client that reads only after it has written everything.
_LINGER_S = 10.0
_LINGER_BYTES = 64 * 1024 * 1024

# Nobody can tell whether an answer is awaited in a tunnel that is only copied. One in which no byte
# has passed for this long is not waited for when the proxy stops.
_TUNNEL_QUIET_S = 2.0

_LATE_S = 10.0

# How often connections are shed for a dial: a few each time, and upstreams get none of the
# last descriptors, which are kept for clients.
_DIALS = 8

# Fewer bytes of a body in a second are next to nothing. Fewer still are what attacks that trickle
# send; a modem sent ten times as many.
_SLOW_BYTES = 512
_BRISK_S = 1.5  # how long one that sent more counts as brisk; the sweep looks every second
_SILENT_S = 10.0  # of an exchange or a tunnel, after which others may have its place

# Most bytes that are read of a connection that waits for its turn, before it is paused.
READ_AHEAD = 64 * 1024

# Module-level names, because looking up an enum member costs more than the comparison.
_OPEN = EndState.OPEN
_IDLE = Waiting.IDLE


def connection_numbers(worker: int = 0, workers: int = 1) -> Iterator[int]:
    """Yield numbers that no other worker has, nor an earlier process of this one."""
    now = time.time_ns()
    return itertools.count(now - now % workers + worker, workers)


class Questions(Protocol):
    """The questions to the owner, made when the first is asked."""

    @property
    def made(self) -> "Asking | None":
        """The questions, if one was asked."""

    def __call__(self) -> "Asking":
        """Return the questions."""

    def ask_again(self) -> None:
        """Have what waits judged again, as the rules have changed."""

    def close(self) -> None:
        """Settle everything as not answered, and ask nothing more."""


class TopLayer(Protocol):
    """Makes the first layer of a connection."""

    def __call__(self, context: Context, session: Session) -> Layer:
        """Return the layer that gets the client's first byte."""
        ...


@dataclass(eq=False)
class Services:
    """The objects that all connections of one proxy share."""

    gate: Gate
    dialer: Dialer
    limits: Limits
    options: Options
    top_layer: TopLayer
    record_query: bool = False
    hints: UpstreamHints = NO_HINTS
    leaf_contexts: LeafContexts = NO_LEAVES
    upstream_tls: UpstreamTls = field(default_factory=UpstreamTls)
    list_options: tuple[str, ...] = ()  # see `Session`
    owns: Callable[[Address], bool] = lambda _: False  # see `Session`
    # Whether a token proves that its sender is the relay of the run with this name.
    proves_run: Callable[[str, str], bool] = lambda _name, _token: False
    connections: set["ClientConnection"] = field(default_factory=set)
    shares: Shares = field(default_factory=Shares)
    apart: Apart = field(default_factory=Apart)
    numbers: Iterator[int] = field(default_factory=connection_numbers)
    windows: WindowBudget = field(default_factory=WindowBudget)
    warm: WarmUpstreams | None = None  # connections that are kept ready; None: none are
    asking: "Questions | None" = None  # None: nobody is asked
    answer_wait_s: float = 30.0  # of one request


class ClientConnection:
    """One client connection with the upstream connections that it has opened."""

    def __init__(  # noqa: PLR0913 - facts about the client and its listener
        self,
        services: Services,
        client: Client,
        listener: str,
        shown: str,
        *,
        local: bool = False,
        credentials: ClientCredentials | None = None,
        run: RunIdentity | None = None,
        share: Share | None = None,
    ) -> None:
        self.services = services
        self.client = client
        client_info = ClientInfo(next(services.numbers), shown, listener)
        if run is not None:
            client_info = client_info.of_run(str(run), run.name)
        self.session = Session(
            gate=services.gate,
            client_info=client_info,
            head_limit=services.limits.head_bytes,
            record_query=services.record_query,
            hints=services.hints,
            leaf_contexts=services.leaf_contexts,
            list_options=services.list_options,
            owns=services.owns,
            local=local,
            credentials=credentials,
            has_run=run is not None,
            proves_run=services.proves_run,
            program=lambda: program_at(client.peername[:2], client.sockname[:2]),
            is_turn_over=services.shares.turns.is_over,
            make_room=self._make_room_for_bytes,
            limits=services.limits,
            windows=services.windows,
            tls_for=self._tls_for,
            take_warm=self._take_warm,
            keep_warm=self._keep_warm,
        )
        self.share = share or services.shares.of(client.peername[0])
        self._turns = self.share.turns
        self._pending: deque[tuple[Callable[[], None], int]] = deque()  # steps, and their bytes
        self._pending_bytes = 0
        self._is_unread = False  # nothing is read while it awaits its turn
        self._awaits_turn = False
        self.context = LayerContext(client, services.options)
        self.layer = services.top_layer(self.context, self.session)
        self.endpoint = Endpoint(self, client)
        self._endpoints: dict[Connection, Endpoint] = {client: self.endpoint}
        self._dials: dict[Connection, asyncio.Task[None]] = {}
        self._jobs: set[Job] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._awaited: dict[AwaitAnswer, Waiter] = {}  # what the owner is asked about
        self._queue: deque[events.Event] = deque()
        self._busy = False
        self._end_state = EndState.OPEN
        self._end_deadline = math.inf  # of lingering and flushing
        self._discarded = 0  # bytes read while lingering
        self._connected_at = 0.0  # when an upstream was last connected
        self._wait_id = 0
        self._dials_first = False  # before it knows what for, as SOCKS5 does
        self._loop = asyncio.get_running_loop()
        self._waiting_since = now = self._loop.time()
        self.active_at = now
        self._unswept = 0  # bytes of the client since the last sweep
        self._brisk_at = -math.inf  # when the client last sent more than next to nothing

    def start(self) -> None:
        """Start the layers, once the client's transport is connected."""
        self.services.connections.add(self)
        self.services.shares.join(self.share, self)
        if self._turns.is_due:
            self._await_turn(interrupted=False)  # it is not read before
        self.process(events.Start())

    @property
    def is_ending(self) -> bool:
        """Whether the connection has left the OPEN state."""
        return self._end_state is not _OPEN

    # --- from the transports

    def received(self, endpoint: Endpoint, data: bytes) -> None:
        """Pass bytes to the layers, or discard them on a connection that is ending."""
        if self._end_state is not _OPEN and endpoint is self.endpoint:
            self._discarded += len(data)
            if self._discarded > _LINGER_BYTES:
                self._end(EndEvent.ABORT)
            return
        if self.session.preconnected is not None and self._drops_preconnected(endpoint):
            return
        if endpoint is self.endpoint:
            self._unswept += len(data)
            self.active_at = self._loop.time()
        elif self.session.waiting is not _IDLE:
            # An upstream that only answers pings must not keep an idle client connected forever.
            self.active_at = self._loop.time()
        if self._pending or self._turns.is_due:
            self._defer_data(endpoint, data)
            self._await_turn(interrupted=False)
            if self._pending_bytes > READ_AHEAD and not self._is_unread:
                self.balance()
            return
        turns = self._turns
        turns.begin()
        if len(data) <= turns.piece:
            self.process(events.DataReceived(endpoint.connection, data))
            turns.end(len(data))
        else:
            self._defer_data(endpoint, data)
            self._do_pending()
            turns.end()
        if self._pending:
            self._await_turn(interrupted=True)

    def ended(self, endpoint: Endpoint) -> None:
        """Handle a peer's end of stream; the peer may still read."""
        if self._pending and not self.is_ending:
            self._defer(partial(self._ended, endpoint))
        else:
            self._ended(endpoint)

    def _ended(self, endpoint: Endpoint) -> None:
        connection = endpoint.connection
        if self._end_state is not _OPEN and endpoint is self.endpoint:
            self._end(EndEvent.EOF)
            return
        if self._drops_preconnected(endpoint):
            return
        if can_read(connection):
            connection.state &= ~ConnectionState.CAN_READ
            self.process(events.ConnectionClosed(connection))

    def lost(self, endpoint: Endpoint) -> None:
        """Handle the loss of a transport, whether it was closed or reset."""
        if self._pending and endpoint is not self.endpoint:
            self._defer(partial(self._lost, endpoint))  # what it sent before comes first
        else:
            self._lost(endpoint)

    def _lost(self, endpoint: Endpoint) -> None:
        if self._drops_preconnected(endpoint):
            return
        connection = endpoint.connection
        could_read = can_read(connection)
        connection.state = ConnectionState.CLOSED
        self._endpoints.pop(connection, None)
        if endpoint is self.endpoint:
            self._end(EndEvent.LOST)
            return
        if could_read:
            self.process(events.ConnectionClosed(connection))
        self.balance()

    # --- work that waits for its turn

    def _defer_data(self, endpoint: Endpoint, data: bytes) -> None:
        self._defer(partial(self._pass_on, endpoint, data, 0), len(data))

    def _pass_on(self, endpoint: Endpoint, data: bytes, at: int) -> None:
        """Pass the next piece of deferred bytes to the layers, and defer the rest."""
        # Of an upstream that was closed while its bytes waited, nothing more is wanted.
        if endpoint.connection not in self._endpoints:
            return
        turns = self._turns
        end = at + turns.size_of_piece()
        if end < len(data):
            rest = len(data) - end
            self._pending.appendleft((partial(self._pass_on, endpoint, data, end), rest))
            self._pending_bytes += rest
            turns.count_waiting(rest)
        piece = data[at:end]
        self.process(events.DataReceived(endpoint.connection, piece))
        turns.weigh(len(piece))

    def _defer(self, step: Callable[[], None], size: int = 0) -> None:
        self._pending.append((step, size))
        self._pending_bytes += size
        self._turns.count_waiting(size)

    def _await_turn(self, *, interrupted: bool) -> None:
        if not self._awaits_turn:
            self._awaits_turn = True
            self._turns.wait(self, size=self._pending_bytes, interrupted=interrupted)
            if not self._pending or self._pending_bytes > READ_AHEAD:
                self.balance()

    def work(self) -> bool:
        """Do what waits until the slice is over; tell whether anything is left."""
        self._do_pending()
        if self._pending:
            return True
        self._awaits_turn = False
        if self._is_unread:
            self.balance()
        return False

    def _do_pending(self) -> None:
        while self._pending:
            step, size = self._pending.popleft()
            self._pending_bytes -= size
            self._turns.count_waiting(-size)
            step()
            if self.session.is_turn_over():
                return

    def _drop_pending(self) -> None:
        self._turns.count_waiting(-self._pending_bytes)
        self._pending_bytes = 0
        self._pending.clear()

    def balance(self) -> None:
        """Pause reading from each peer whose bytes cannot be passed on (backpressure)."""
        endpoints = self._endpoints.values()
        # Pausing and resuming costs system calls, so a little is read ahead of a turn; but nothing
        # of a connection that has not begun.
        ahead = bool(self._pending) and self._pending_bytes <= READ_AHEAD
        self._is_unread = waits = self._turns.is_full or (self._awaits_turn and not ahead)
        up = any(endpoint.is_congested for endpoint in endpoints if endpoint is not self.endpoint)
        if self.session.reads_while_sending:
            up = up or self.endpoint.is_congested
        for endpoint in endpoints:
            congested = up if endpoint is self.endpoint else self.endpoint.is_congested
            endpoint.pause(pause=waits or endpoint.is_held or congested)

    # --- to and from the layers

    def process(self, event: events.Event) -> None:
        """Pass `event` to the layers and execute their commands.

        An event that a command causes is queued: layers are generators, which cannot be entered
        twice.
        """
        queue = self._queue
        queue.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while queue:
                for command in self.layer.handle_event(queue.popleft()):
                    self._execute(command)
        except Exception as error:  # noqa: BLE001 - fail closed
            queue.clear()
            self._fail(error)
        finally:
            self._busy = False

    def _execute(self, command: commands.Command) -> None:
        if isinstance(command, commands.SendData):
            endpoint = self._endpoints.get(command.connection)
            if endpoint is not None and endpoint.transport is not None:
                endpoint.transport.write(command.data)
        elif isinstance(command, commands.OpenConnection):
            task = asyncio.get_running_loop().create_task(self._dial(command))
            if not task.done():
                self._dials[command.connection] = task
        elif isinstance(command, commands.CloseConnection):
            half = isinstance(command, commands.CloseTcpConnection) and command.half_close
            (self._half_close if half else self._close_connection)(command.connection)
        else:
            self._execute_rare(command)

    def _execute_rare(self, command: commands.Command) -> None:
        if isinstance(command, PauseReading):
            if (held := self._endpoints.get(command.connection)) is not None:
                held.is_held = command.hold
                self.balance()
        elif isinstance(command, ContinueLater):
            if not self.is_ending:
                self._pending.appendleft((partial(self.process, TurnCame()), 0))
                self._await_turn(interrupted=True)
        elif isinstance(command, RunApart):
            self._run_apart(command)
        elif isinstance(command, AwaitAnswer):
            self._await_answer(command)
        elif isinstance(command, StopAwaiting):
            self._stop_awaiting(command.awaited)
        elif isinstance(command, commands.RequestWakeup):
            self._wake_later(command)
        elif isinstance(command, commands.Log):
            pass  # mitmproxy's log lines quote what peers sent, including credentials
        else:
            raise TypeError(
                f"a layer issued {type(command).__name__}, which this driver does not support"
            )

    def _await_answer(self, command: AwaitAnswer) -> None:
        services = self.services
        if services.asking is None or self.is_ending:
            self.process(AnswerCame(command, Answer.NONE))
            return
        asking, facts = services.asking(), command.facts
        if not asking.knows(facts.subject):
            facts = replace(facts, program=self._program())

        def settle(answer: Answer) -> None:
            self._awaited.pop(command, None)
            self.process(AnswerCame(command, answer))

        found = asking.put(facts, settle, command.deadline)
        if isinstance(found, Answer):
            self.process(AnswerCame(command, found))
        else:
            command.deadline = found.deadline
            self._awaited[command] = found

    def _stop_awaiting(self, command: AwaitAnswer) -> None:
        waiter, asking = self._awaited.pop(command, None), self.services.asking
        if waiter is not None and asking is not None:
            asking().take_back(waiter)

    def _program(self) -> str:
        """Return what is known of the client's program, which may take some milliseconds."""
        info = self.session.client_info
        if info.run is not None:
            return info.client.rpartition(": ")[2]
        return self.session.program() or name_of(info.client, info.run)

    def _run_apart(self, command: RunApart) -> None:
        def done() -> None:
            self._jobs.discard(job)
            self.process(RanApart(command))

        job = self.services.apart.submit(self.share, command.size, command.work, done)
        self._jobs.add(job)

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
        except Exception as error:  # noqa: BLE001 - fail closed
            self._fail(error)
            return
        finally:
            self._dials.pop(server, None)
        # mitmproxy's layers only test whether there is a reply, and pass it on unchanged.
        self.process(events.OpenConnectionCompleted(command, cast("str | None", reply)))

    async def _connect(self, server: Server) -> None:
        if server.address is None:
            raise DialError(Failure.UNREACHABLE, "no address was given")
        gate, client = self.session.gate, self.session.client_info
        target = Authority.of(server.address[0], server.address[1])
        decision = gate.dial(client, target)
        if not decision.allowed:
            raise DialError(Failure.DENIED, "the policy no longer allows this", decision)
        server.timestamp_start = time.time()
        if self._takes_preconnected(server):
            return
        dialled = await self._dialled(target, tunnel=_is_tunnel(server))
        if self._end_state is not _OPEN:
            dialled.socket.close()
            raise DialError(Failure.UNREACHABLE, "the client has left")
        endpoint = Endpoint(self, server, dialled.early)
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
        self._connected_at = loop.time()
        self.balance()

    async def _dialled(self, target: Authority, *, tunnel: bool) -> Dialled:
        """Dial, if need be after another client has made room."""
        gate, client = self.session.gate, self.session.client_info

        def judge(address: Address, owner: AddressOwner) -> Decision:
            return gate.address(client, target, address, owner)

        shares = self.services.shares

        async def dial() -> Dialled:
            if not descriptors.is_room_for_upstream(shares.open_sockets, shares.other_files):
                raise no_room()
            shares.open_sockets += 1  # the endpoint counts it afterwards
            try:
                return await self.services.dialer.dial(
                    target, judge, tunnel=tunnel, client=self.share
                )
            finally:
                shares.open_sockets -= 1

        for _ in range(_DIALS):
            try:
                return await dial()
            except DialError as error:
                if error.failure is not Failure.NO_ROOM or not self._make_room_for_socket():
                    raise
            # The loop closes the sockets of what was shed in its next iteration.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return await dial()

    def _make_room_for_socket(self) -> bool:
        problem = f"nearly all of the {descriptors.limit()} files that may be open are open"
        return self.services.shares.make_room(SOCKETS, self.share, problem, wanting=self, more=0)

    def _make_room_for_bytes(self, size: int) -> bool:
        problem = "the memory for bodies that wait to be judged is used up"
        return self.services.shares.make_room(MEMORY, self.share, problem, wanting=self, more=size)

    def _takes_preconnected(self, server: Server) -> bool:
        """Let `server` use the connection that was opened for the tunnel, if there is one."""
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

    def _take_warm(self, route: Route, attempt: Attempt) -> UpstreamConnection | None:
        """Return the connection that is kept ready for this client, now its own; None: it dials."""
        warm = self.services.warm
        self._dials_first = self._dials_first or self.session.preconnected is not None
        if warm is None or self._dials_first:
            return None
        taken = warm.take(self._warm_key(route, attempt), self.session.gate)
        if taken is None:
            return None
        upstream, endpoint = taken
        endpoint.owner = self
        self._endpoints[upstream.server] = endpoint
        self._connected_at = asyncio.get_running_loop().time()
        self.balance()
        return upstream

    def _keep_warm(self, route: Route, attempt: Attempt) -> None:
        """Have a connection opened for this client's next request."""
        warm, session, share = self.services.warm, self.session, self.share
        if warm is None or self._dials_first or session.closing:
            return
        is_gone = partial(_is_gone, share.client, session.is_run_over)
        client = Beneficiary(session.gate, session.client_info.apart(), share, is_gone)
        warm.keep(self._warm_key(route, attempt), client)

    def _warm_key(self, route: Route, attempt: Attempt) -> Key:
        return Key(self._owner, route, attempt.credential.credential)

    def _tls_for(self, attempt: Attempt) -> TlsFor:
        """Return how TLS begins with an upstream, of which only this client resumes a session."""
        mark = self.session.gate.mark_of(attempt.credential.credential)
        return TlsFor(self.services.upstream_tls, (self._owner, mark))

    @property
    def _owner(self) -> Owner:
        info = self.session.client_info
        return Owner(info.listener, self.share.client, info.run)

    def _drops_preconnected(self, endpoint: Endpoint) -> bool:
        """Close a preconnected upstream that sends or closes before a request; it is redialled."""
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
        could_read = can_read(connection)
        connection.state = ConnectionState.CLOSED
        if connection is self.client:
            self._end(EndEvent.CLOSE if could_read else EndEvent.CLOSE_AT_EOF)
            return
        if (dial := self._dials.pop(connection, None)) is not None:
            dial.cancel()
        if isinstance(connection, Server) and connection.error and connection.address:
            # Its certificate may be another's, because the name leads elsewhere by now.
            self.services.dialer.names.forget(connection.address[0])
        endpoint = self._endpoints.pop(connection, None)
        if endpoint is not None:
            self._close_upstream(endpoint, _LINGER_S)
            self.balance()

    # --- the end of the client's connection: see `connection_end`

    def _end(self, event: EndEvent) -> None:
        before, after = self._end_state, next_state(self._end_state, event)
        if after is before:
            return
        self._end_state = after
        if after is EndState.LINGERING:
            self._linger()
        elif after is EndState.FLUSHING:
            self._flush()
        elif after is EndState.RESET:
            self.endpoint.reset()
        if before is _OPEN:
            self._release()
        if after is EndState.RESET or after is EndState.GONE:
            # It no longer counts towards the limit, although its sockets are closed a bit later.
            self.services.connections.discard(self)
            self.services.shares.leave(self.share, self)

    def _linger(self) -> None:
        """Send what is left, close our half, and read and discard for a while."""
        transport = self.endpoint.transport
        self._end_deadline = asyncio.get_running_loop().time() + _LINGER_S
        self.endpoint.is_held = False
        if transport is not None and not transport.is_closing():
            transport.write_eof()
            self.endpoint.pause(pause=False)

    def _flush(self) -> None:
        """Close the transport after it has sent what is left, which has a time limit."""
        if self._end_deadline == math.inf:
            self._end_deadline = asyncio.get_running_loop().time() + _LINGER_S
        if self.endpoint.transport is not None:
            self.endpoint.transport.close()

    def _release(self) -> None:
        """Tell the layers that the client is gone, and release every timer, dial and upstream."""
        self._drop_pending()
        self.client.state = ConnectionState.CLOSED
        self.process(events.ConnectionClosed(self.client))
        for timer in self._timers:
            timer.cancel()
        for job in self._jobs:
            job.cancel()
        for awaited in list(self._awaited):
            self._stop_awaiting(awaited)
        for dial in list(self._dials.values()):
            dial.cancel()
        for connection, endpoint in list(self._endpoints.items()):
            if endpoint is not self.endpoint:
                connection.state = ConnectionState.CLOSED
                del self._endpoints[connection]
                # The client has aborted its request, so there is nothing to complete.
                self._close_upstream(endpoint, 0)

    @staticmethod
    def _close_upstream(endpoint: Endpoint, patience_s: float) -> None:
        transport = endpoint.transport
        if transport is None:
            return
        transport.close()
        # A peer that does not read would keep the last bytes, and this connection, forever.
        if transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(patience_s, endpoint.reset)

    def _fail(self, error: Exception) -> None:
        logger.error("a connection was closed after an internal error", exc_info=error)
        self.abort()

    def abort(self) -> None:
        """Reset the client and every upstream now."""
        for endpoint in list(self._endpoints.values()):
            if endpoint is not self.endpoint:
                endpoint.connection.state = ConnectionState.CLOSED
                endpoint.reset()
        self.client.state = ConnectionState.CLOSED
        self._end(EndEvent.ABORT)

    # --- what it holds: see `shares`

    def count_socket(self, change: int) -> None:
        """Count a socket that was opened (1) or closed (-1)."""
        self.services.shares.open_sockets += change

    @property
    def sockets(self) -> int:
        """How many sockets it has open or is about to open, with those to upstreams."""
        return len(self._endpoints) + len(self._dials)

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait in it: bodies to be judged, and what a peer has not taken yet."""
        waiting = self._pending_bytes
        waiting += self.session.held_bytes + self.session.queued_bytes()
        for endpoint in self._endpoints.values():
            if endpoint.transport is not None:
                waiting += endpoint.transport.get_write_buffer_size()
        return waiting

    def standing(self, now: float) -> tuple[Standing, float]:
        """Return what would be lost with it, and when something was last done on it."""
        if self.is_ending or (self.session.waiting is not Waiting.EXCHANGE and self.idle):
            return Standing.IDLE, self.active_at
        is_brisk = self._unswept >= _SLOW_BYTES or now - self._brisk_at < _BRISK_S
        if not is_brisk and self.session.owes_body() and not self.endpoint.is_paused:
            return Standing.SLOW, self._waiting_since
        is_silent = now - self.active_at > _SILENT_S
        return Standing.SILENT if is_silent else Standing.BUSY, self.active_at

    def shed(self) -> None:
        """End at once, in favour of another client."""
        self.session.loss = SHED
        self.abort()

    # --- from the proxy as a whole

    def sweep(self, now: float) -> None:
        """End the connection if it has waited too long; called about once a second."""
        if self._unswept >= _SLOW_BYTES:
            self._brisk_at = now
        self._unswept = 0
        if self._end_state is not _OPEN:
            if now > self._end_deadline:
                self._end(EndEvent.ABORT)
            return
        if self.endpoint.was_reset():
            self._end(EndEvent.ABORT)
            return
        session = self.session
        if session.wait_id != self._wait_id:
            self._wait_id, self._waiting_since = session.wait_id, now
        limit_s, since = self._time_limit()
        if now - since > limit_s:
            self.process(TimedOut())
            self._close_if_open()

    def _time_limit(self) -> tuple[float, float]:
        """Return the time limit of the current wait in seconds, and when it started."""
        limits, since = self.services.limits, self._waiting_since
        match self.session.waiting:
            case Waiting.HEAD | Waiting.ANSWER as what:
                # The desk keeps the limit of an answer; this is for a wait that it has lost.
                of_answer_s = self.services.answer_wait_s + _LATE_S
                return limits.head_timeout_s if what is Waiting.HEAD else of_answer_s, since
            case Waiting.HANDSHAKE:
                return limits.handshake_timeout_s, since
            case Waiting.UPSTREAM if self._dials:
                # The dialer keeps the limit of connecting; this is for a dial that hangs.
                return limits.connect_timeout_s + limits.handshake_timeout_s, since
            case Waiting.UPSTREAM:
                return limits.handshake_timeout_s, max(since, self._connected_at)
            case Waiting.BODY if self.session.gate.is_crowded:
                # A client that trickles bytes would occupy the room that all clients share.
                return limits.head_timeout_s, since
            case _:
                return limits.idle_timeout_s, max(self.active_at, since)

    def withdraw(self) -> bool:
        """Close a tunnel whose rule was revoked; tell whether it was closed."""
        session = self.session
        request = session.websocket_request
        target = session.target if request is None else request.target
        if self.is_ending:
            return False
        lost: Authority | str | None = target
        if target is None or self._holds(target):
            lost = session.gate.lost_target(session.client_info)
        if lost is None:
            return False
        session.gate.refuse(session.client_info, Phase.RELOAD, Reason.RULE_WITHDRAWN, lost)
        self.process(RuleRevoked())
        self._close_if_open()
        return True

    def _holds(self, target: Authority) -> bool:
        gate, request = self.session.gate, self.session.websocket_request
        session = self.session
        client = session.client_info
        holds = gate.may_stay_open(
            target,
            passthrough=session.passthrough,
            raw=session.raw,
            database=session.database,
            client_info=client,
        )
        return holds and (request is None or gate.request_may_stay_open(request, client))

    def shut(self, now: float) -> bool:
        """Accept no further request, and close if idle; tell whether something is in progress."""
        self.session.closing = True
        if self.is_ending:
            # A client that leaves its half open is not waited for: it has everything.
            return self._has_unsent()
        if self._pending or not (self.idle or self._is_quiet_tunnel(now)):
            return True
        self._close_if_open()
        return self._has_unsent()

    def drop(self) -> None:
        """Give up what is in progress, but not what the kernel has yet to deliver of a response."""
        if self.is_ending and not self._has_unsent():
            self._end(EndEvent.EOF)
        else:
            self.abort()

    def _is_quiet_tunnel(self, now: float) -> bool:
        quiet = self.session.waiting is Waiting.TUNNEL and now - self.active_at > _TUNNEL_QUIET_S
        return quiet and not self._has_unsent()

    def _has_unsent(self) -> bool:
        transports = (endpoint.transport for endpoint in self._endpoints.values())
        return any(each is not None and each.get_write_buffer_size() for each in transports)

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost by closing this connection."""
        return self.session.waiting in (Waiting.IDLE, Waiting.HEAD, Waiting.HANDSHAKE)

    def _close_if_open(self) -> None:
        """Close the client's connection if the layers have not done so."""
        if not self.is_ending:
            self._close_connection(self.client)


def _is_gone(client: Hashable, is_run_over: Callable[[], bool]) -> bool:
    """Tell whether a client will not come back: its run is over, or its process has ended."""
    if is_run_over():
        return True
    return isinstance(client, tuple) and not is_running(client[1])


def _is_tunnel(server: Server) -> bool:
    """Tell whether an upstream proxy would be asked for a tunnel to `server`."""
    return server.tunnel if isinstance(server, UpstreamServer) else True
