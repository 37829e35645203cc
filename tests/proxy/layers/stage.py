"""Plays one client connection without sockets: what the peers do goes in, what they get is kept.

It stands where `claude_proxy.proxy.connection` stands and obeys a layer's commands in the same
order, but there are no sockets. What would fail over one, a write after the close, fails here.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from mitmproxy import ctx
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer

from claude_proxy.config.allowlist import loader
from claude_proxy.config.settings import ClientCredentials
from claude_proxy.events import DecisionMade, Event, OutcomeSeen
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.policy import Policy
from claude_proxy.proxy.dialer import Dialer, DialError
from claude_proxy.proxy.gate import ClientInfo, Gate
from claude_proxy.proxy.layers.asking import AnswerCame, AwaitAnswer, StopAwaiting
from claude_proxy.proxy.layers.session import (
    NO_LEAVES,
    ContinueLater,
    PauseReading,
    RanApart,
    RuleRevoked,
    RunApart,
    Session,
    TimedOut,
    TurnCame,
)
from claude_proxy.proxy.upstream_tls import TlsFor, UpstreamTls
from claude_proxy.trust.leaf_contexts import LeafContexts
from tests.support.loopback import Names

ORIGIN = ClientInfo(7, "127.0.0.1:50000", "tcp")
UPSTREAM_ADDRESS = ("203.0.113.5", 443)

type MakeLayer = Callable[[Context, Session], Layer]


def policy_of(text: str) -> Policy:
    return loader.load(text, name="allowlist.yaml")


def options_of(**values: object) -> Options:
    """Return the options that mitmproxy's layers look at, as `proxy.py` sets them."""
    options = Options()
    Proxyserver().load(options)
    TlsConfig().load(options)
    options.update(connection_strategy="lazy", **values)
    ctx.options = options  # where its TLS addon looks for them
    return options


class BrokenPolicy(Policy):
    """A policy with a bug in every answer."""

    def _fail(self, *_: object, **__: object) -> Decision:
        raise RuntimeError("a bug")

    decide_connect = decide_request = decide_hello = decide_address = _fail


@dataclass(eq=False)
class Ledger:
    """Keeps what a gate records."""

    events: list[Event] = field(default_factory=list)

    @property
    def decisions(self) -> list[DecisionMade]:
        return [event for event in self.events if isinstance(event, DecisionMade)]

    @property
    def outcomes(self) -> list[OutcomeSeen]:
        return [event for event in self.events if isinstance(event, OutcomeSeen)]

    @property
    def reasons(self) -> list[str]:
        return [decision.reason for decision in self.decisions]

    @property
    def last(self) -> OutcomeSeen:
        """How the exchange ended that ended last."""
        return self.outcomes[-1]


def gate_of(text: str, ledger: Ledger) -> Gate:
    return Gate(policy_of(text), ledger.events.append)


@dataclass(eq=False)
class Peer:
    """What one peer of the proxy has got, and whether it was let go."""

    connection: Connection
    got: bytearray = field(default_factory=bytearray)
    held: bool = False  # nothing more is read from it
    half_closed: bool = False
    closed: bool = False
    dial: commands.OpenConnection | None = None  # while it is not answered

    @property
    def address(self) -> object:
        """The host and port that were to be dialled."""
        return cast("Server", self.connection).address

    def take(self) -> bytes:
        """Return what came since the last time."""
        data = bytes(self.got)
        self.got.clear()
        return data


class Stage:
    """One client connection with whatever upstreams its layers open."""

    def __init__(
        self,
        make: MakeLayer,
        gate: Gate,
        *,
        connects: bool = True,
        options: Options | None = None,
        head_limit: int = 64 * 1024,
        record_query: bool = False,
        credentials: ClientCredentials | None = None,
        local: bool = False,
        leaf_contexts: LeafContexts = NO_LEAVES,
        roots: Path | None = None,
    ) -> None:
        tls = UpstreamTls(None if roots is None else str(roots))
        client = Client(
            peername=("127.0.0.1", 50000),
            sockname=("127.0.0.1", 9051),
            state=ConnectionState.OPEN,
        )
        self.context = Context(client, options or options_of())
        self.session = Session(
            gate,
            replace(ORIGIN, attempts={}),
            head_limit,
            record_query=record_query,
            credentials=credentials,
            local=local,
            leaf_contexts=leaf_contexts,
            tls_for=lambda _: TlsFor(tls),
        )
        self.client = Peer(client)
        self.upstreams: list[Peer] = []
        self.connects = connects
        self.log: list[str] = []
        self.asked: list[AwaitAnswer] = []  # what the owner has not answered
        self.apart: list[RunApart] = []  # work for another thread
        self.runs_apart = True  # it is done at once
        self.awaits_turn = False  # the layer has more to do, in its next turn
        self.timers: list[commands.RequestWakeup] = []
        self._queue: deque[events.Event] = deque()
        self._layer = make(self.context, self.session)
        self._do(events.Start())

    # --- what the peers do

    def says(self, data: bytes) -> bytes:
        """Have the client send `data`; return what it gets at once."""
        self._do(events.DataReceived(self.client.connection, data))
        return self.client.take()

    def client_half_closes(self) -> bytes:
        self.client.connection.state &= ~ConnectionState.CAN_READ
        self._do(events.ConnectionClosed(self.client.connection))
        return self.client.take()

    def client_goes(self) -> None:
        self.client.connection.state = ConnectionState.CLOSED
        self._do(events.ConnectionClosed(self.client.connection))

    @property
    def upstream(self) -> Peer:
        """The upstream that was dialled last."""
        return self.upstreams[-1]

    def answers(self, data: bytes, upstream: Peer | None = None) -> bytes:
        """Have an upstream send `data`; return what the client gets at once."""
        self._do(events.DataReceived((upstream or self.upstream).connection, data))
        return self.client.take()

    def upstream_ends(self, upstream: Peer | None = None, *, error: str | None = None) -> bytes:
        peer = upstream or self.upstream
        peer.connection.error = error
        peer.connection.state &= ~ConnectionState.CAN_READ
        self._do(events.ConnectionClosed(peer.connection))
        return self.client.take()

    def reached(self, error: DialError | None = None) -> bytes:
        """Answer the dial that is waiting; return what the client gets at once."""
        self._answer_dial(self.upstream, error)
        self._work()
        return self.client.take()

    def expires(self) -> bytes:
        self._do(TimedOut())
        return self.client.take()

    def passes_time(self) -> bytes:
        """Let every timer expire that is running; return what the client gets."""
        timers, self.timers = self.timers, []
        for timer in timers:
            self._do(events.Wakeup(timer))
        return self.client.take()

    def is_withdrawn(self) -> bytes:
        self._do(RuleRevoked())
        return self.client.take()

    def turn_comes(self) -> bytes:
        """Let the layer go on that wanted to continue later; return what the client gets."""
        assert self.awaits_turn
        self.awaits_turn = False
        self._do(TurnCame())
        return self.client.take()

    def owner_says(self, answer: Answer, which: int = 0) -> bytes:
        """Have the owner answer what is asked; return what the client gets at once."""
        self._do(AnswerCame(self.asked.pop(which), answer))
        return self.client.take()

    def finishes_apart(self) -> bytes:
        """Have the other thread finish; return what the client gets at once."""
        self.run_apart()
        self._work()
        return self.client.take()

    def run_apart(self) -> None:
        """Do the work that waits for another thread, and tell the layer."""
        command = self.apart.pop(0)
        command.work()
        self._queue.append(RanApart(command))

    # --- what the layers want

    def _do(self, event: events.Event) -> None:
        self._queue.append(event)
        self._work()

    def _work(self) -> None:
        while self._queue:
            for command in self._layer.handle_event(self._queue.popleft()):
                self._obey(command)

    def _obey(self, command: commands.Command) -> None:
        match command:
            case commands.SendData():
                peer = self._peer(command.connection)
                assert not peer.closed, f"a write after the close: {command.data!r}"
                peer.got += command.data
            case commands.OpenConnection() if self.session.preconnected is not None:
                self._hand_over(self.session.preconnected, command)
            case commands.OpenConnection():
                peer = Peer(command.connection, dial=command)
                self.upstreams.append(peer)
                if self.connects:
                    self._answer_dial(peer, None)
            case commands.CloseTcpConnection(half_close=True):
                self._peer(command.connection).half_closed = True
                command.connection.state &= ~ConnectionState.CAN_WRITE
            case commands.CloseConnection():
                self._close(self._peer(command.connection))
            case PauseReading():
                self._peer(command.connection).held = command.hold
            case _:
                self._note(command)

    def _note(self, command: commands.Command) -> None:
        if isinstance(command, ContinueLater):
            self.awaits_turn = True
        elif isinstance(command, AwaitAnswer):
            self.asked.append(command)
        elif isinstance(command, StopAwaiting):
            self.asked.remove(command.awaited)
        elif isinstance(command, RunApart):
            self.apart.append(command)
            if self.runs_apart:
                self.run_apart()
        elif isinstance(command, commands.RequestWakeup):
            self.timers.append(command)
        elif isinstance(command, commands.Log):
            self.log.append(command.message)

    def _peer(self, connection: Connection) -> Peer:
        peers: Iterable[Peer] = (self.client, *self.upstreams)
        return next(peer for peer in peers if peer.connection is connection)

    def _hand_over(self, spare: Server, dial: commands.OpenConnection) -> None:
        """Let the connection that nobody has used yet answer a dial, as the driver does."""
        self.session.preconnected = None
        peer, server = self._peer(spare), dial.connection
        assert (spare.address, _is_tunnel(spare)) == (server.address, _is_tunnel(server))
        server.state, server.peername = spare.state, spare.peername
        peer.connection = server
        self._queue.append(events.OpenConnectionCompleted(dial, None))

    def _answer_dial(self, peer: Peer, error: DialError | None) -> None:
        dial, peer.dial = peer.dial, None
        assert dial is not None
        if error is None:
            peer.connection.state = ConnectionState.OPEN
            peer.connection.peername = UPSTREAM_ADDRESS
        # mitmproxy's layers hand the reply on as it is.
        self._queue.append(events.OpenConnectionCompleted(dial, cast("str | None", error)))

    def _close(self, peer: Peer) -> None:
        was_closed, peer.closed = peer.closed, True
        peer.connection.state = ConnectionState.CLOSED
        if peer is self.client and not was_closed:
            self._queue.append(events.ConnectionClosed(peer.connection))


def _is_tunnel(server: Connection) -> bool:
    return getattr(server, "tunnel", True)


def a_dialer(**settings: object) -> Dialer:
    """Return a dialer that only tells how a request must look: the stage dials nothing."""
    return Dialer(Names(), **settings)  # type: ignore[arg-type]
