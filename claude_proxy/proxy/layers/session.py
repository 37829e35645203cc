"""The session of a client connection: what its layers and the driver of its sockets share.

A layer is sans-io and has no clock: it says what it waits for, and the driver measures the time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from mitmproxy.connection import Connection, Server
from mitmproxy.proxy import commands, events

from claude_proxy.config.settings import ClientCredentials
from claude_proxy.policy.request import Request
from claude_proxy.proxy.gate import ClientInfo, Gate
from claude_proxy.wire.authority import Authority

type Commands = Iterator[commands.Command]

# The address of a client that has none because it connected over a Unix socket.
NO_ADDRESS = ("unix", 0)


class Waiting(Enum):
    """What a client connection waits for; each wait has its own time limit."""

    HEAD = auto()  # the rest of a request head, counted from its first byte
    HANDSHAKE = auto()  # the ClientHello and what follows, counted from the CONNECT's answer
    IDLE = auto()  # the next request of a kept connection
    UPSTREAM = auto()  # the dial and the TLS handshake with the upstream
    BODY = auto()  # the rest of a body that is judged whole, counted from its head
    EXCHANGE = auto()  # bytes of a running exchange, either way
    TUNNEL = auto()  # bytes of a passthrough or WebSocket tunnel, either way


@dataclass(slots=True, eq=False)
class Session:
    """The facts of one client connection that its layers share."""

    gate: Gate
    client_info: ClientInfo
    head_limit: int  # bytes a message head may have
    record_query: bool = False
    credentials: ClientCredentials | None = None  # what the client must present; None: nothing
    local: bool = False  # the peer is on this machine, and may send a PROXY header
    target: Authority | None = None  # of the tunnel, once one is open
    # An open connection to `target` that is still unused: the next dial takes it.
    preconnected: Server | None = None
    passthrough: bool = False  # the tunnel's TLS is not opened
    websocket_request: Request | None = None  # the request that opened a WebSocket
    waiting: Waiting = Waiting.HEAD
    wait_id: int = 0  # counts the waits, so that a new one is not taken for the one before
    closing: bool = False  # the proxy is shutting down: no further request on this connection
    protocol: str = field(default="")  # the protocol inside the tunnel, for the verbose log

    def wait(self, what: Waiting) -> None:
        """Begin a wait."""
        self.waiting = what
        self.wait_id += 1


class TimedOut(events.Event):
    """The present wait has reached its time limit."""


class RuleRevoked(events.Event):
    """The rule that allowed this tunnel no longer does."""


class PauseReading(commands.Command):
    """Stop reading from one connection, or resume: what was read cannot be used yet."""

    def __init__(self, connection: Connection, *, hold: bool) -> None:
        self.connection = connection
        self.hold = hold
