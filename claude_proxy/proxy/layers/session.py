"""Session of a client connection: the state that its layers and its driver share.

Layers are sans-io and have no clock: a layer says what it waits for, and the driver applies the
time limit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from mitmproxy.connection import Connection, Server
from mitmproxy.proxy import commands, events

from claude_proxy.config.settings import ClientCredentials, Limits
from claude_proxy.policy.credentials.binding import Binding
from claude_proxy.policy.request import Request
from claude_proxy.proxy.gate import Attempt, ClientInfo, Gate
from claude_proxy.proxy.layers.http2_windows import WindowBudget
from claude_proxy.proxy.layers.upstream import UpstreamConnection
from claude_proxy.proxy.upstream_hints import NO_HINTS, UpstreamHints
from claude_proxy.proxy.upstream_tls import TlsFor, UpstreamTls
from claude_proxy.proxy.warm_keys import Route
from claude_proxy.trust.leaf_contexts import LeafContexts
from claude_proxy.wire.address import Address
from claude_proxy.wire.authority import Authority

type Commands = Iterator[commands.Command]

# Without a certificate to show, TLS with a client ends.
NO_LEAVES = LeafContexts()

# The address of a client that has none because it connected over a Unix socket.
NO_ADDRESS = ("unix", 0)

# The outcome of what ends because its connection was closed in favour of another client.
SHED = "shed"


def _never() -> bool:
    return False


def _is_no_own(_: Address) -> bool:
    return False


def _nothing() -> int:
    return 0


def _unknown() -> None:
    return None


def _no_room(_: int) -> bool:
    return False


def _none_warm(_: Route, __: Attempt) -> UpstreamConnection | None:
    return None


def _own_tls(_: Attempt) -> TlsFor:
    return TlsFor(UpstreamTls())


def _keeps_none(_: Route, __: Attempt) -> None:
    """Keep nothing ready."""


class Waiting(Enum):
    """What a client connection waits for; each wait has its own time limit."""

    HEAD = auto()  # the rest of a request head, counted from its first byte
    HANDSHAKE = auto()  # the rest of the TLS handshake, counted from the response to CONNECT
    IDLE = auto()  # the next request of a persistent connection
    ANSWER = auto()  # the owner's answer, for which nothing has left yet
    UPSTREAM = auto()  # the dial and the TLS handshake with the upstream
    BODY = auto()  # the rest of a body that is judged as a whole, counted from the head
    EXCHANGE = auto()  # bytes of a running exchange, either way
    TUNNEL = auto()  # bytes of a passthrough or WebSocket tunnel, either way


@dataclass(slots=True, eq=False)
class Session:
    """The facts of one client connection that its layers share."""

    gate: Gate
    client_info: ClientInfo
    head_limit: int  # bytes a message head may have
    record_query: bool = False
    hints: UpstreamHints = NO_HINTS
    leaf_contexts: LeafContexts = NO_LEAVES  # what TLS shows to the client
    list_options: tuple[str, ...] = ()  # what a command needs that changes this policy
    owns: Callable[[Address], bool] = _is_no_own  # whether an address is one of this machine's
    credentials: ClientCredentials | None = None  # what the client must present; None: nothing
    has_run: bool = False  # its listener serves one run, so nobody has to announce it
    proves_run: Callable[[str, str], bool] = lambda _name, _token: False  # see `Services`
    agent: bytes | None = None  # User-Agent of the CONNECT, for messages to a person only
    # Finds the name of the client's program, which may take some milliseconds; None: it is unknown.
    program: Callable[[], str | None] = _unknown
    local: bool = False  # the peer is on this machine, and may send a PROXY header
    target: Authority | None = None  # of the tunnel, once one is open
    # An open connection to `target` that is still unused: the next dial takes it.
    preconnected: Server | None = None
    passthrough: bool = False  # the tunnel's TLS is not intercepted
    raw: bool = False  # any protocol may be spoken in the tunnel
    database: Binding | None = None  # by which the tunnel's client is logged in to a database
    websocket_request: Request | None = None  # the request that opened a WebSocket
    waiting: Waiting = Waiting.HEAD
    wait_id: int = 0  # counts the waits, to distinguish a new one from the one before
    limits: Limits = field(default_factory=Limits)
    windows: WindowBudget = field(default_factory=WindowBudget)  # of all connections
    closing: bool = False  # the proxy is shutting down: no further request on this connection
    protocol: str = field(default="")  # the protocol inside the tunnel, for the verbose log
    # Whether the client reads while it sends, as HTTP/2 needs it: one that takes no answers is not
    # asked for more. A client of HTTP/1.1 may send all of one request first.
    reads_while_sending: bool = False
    # Whether this connection has worked long enough: a layer that has more to do with the bytes it
    # got stops there, and issues `ContinueLater`.
    is_turn_over: Callable[[], bool] = _never
    # How TLS begins with the upstream of an attempt; what it may resume is this client's own.
    tls_for: Callable[[Attempt], TlsFor] = _own_tls
    # Returns a connection that was opened ahead of an allowed request, to be sent on it at once: an
    # `UpstreamOpened` waits in its inbox. None: it has to be dialled.
    take_warm: Callable[[Route, Attempt], UpstreamConnection | None] = _none_warm
    # Called when a request that needed a new connection was answered: the next may come soon.
    keep_warm: Callable[[Route, Attempt], None] = _keeps_none
    is_run_over: Callable[[], bool] = _never  # of a run that the client belongs to
    # Whether the client owes the rest of a request's body, for which everything else is ready.
    owes_body: Callable[[], bool] = _never
    # How many bytes wait in the layers until a peer takes them.
    queued_bytes: Callable[[], int] = _nothing
    # Sheds a client that uses more, so that this connection may hold so many more bytes.
    make_room: Callable[[int], bool] = _no_room
    holding: list[Attempt] = field(default_factory=list)  # whose bodies are held; some have ended
    loss: str = "client-closed"  # the outcome of what ends with the client's connection

    @property
    def held_bytes(self) -> int:
        """How many bytes of bodies are held on this connection."""
        if self.holding:
            self.holding[:] = [attempt for attempt in self.holding if not attempt.ended]
        return sum(attempt.held for attempt in self.holding)

    def wait(self, what: Waiting) -> None:
        """Begin a new wait, whose time limit starts now."""
        self.waiting = what
        self.wait_id += 1


class TimedOut(events.Event):
    """The current wait has reached its time limit."""


class RuleRevoked(events.Event):
    """A new policy no longer allows this tunnel."""


class TurnCame(events.Event):
    """The layer that issued `ContinueLater` may go on; no bytes have come in between."""


class ContinueLater(commands.Command):
    """Let others have their turn; a `TurnCame` follows, before any more bytes of a peer."""


class RunApart(commands.Command):
    """Do `work`, which is pure and may take long, in another thread; a `RanApart` follows.

    `size` says about how long it takes compared with others.
    """

    def __init__(self, work: Callable[[], None], size: int) -> None:
        self.work = work
        self.size = size


@dataclass(repr=False)
class RanApart(events.CommandCompleted):
    """The work of a command is done, or has failed."""

    command: RunApart
    reply: None = None


class PauseReading(commands.Command):
    """Stop (`hold`) or resume reading from one connection, whose bytes cannot be used yet."""

    def __init__(self, connection: Connection, *, hold: bool) -> None:
        self.connection = connection
        self.hold = hold
