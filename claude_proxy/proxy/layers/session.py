"""Defines what our layers and the connection that drives them tell each other.

A layer knows no clock (it is sans-io): it says what it waits for, and the connection measures.
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
    """What a client connection waits for; each has a time limit of its own."""

    HEAD = auto()  # the rest of a request head, counted from its first byte
    HANDSHAKE = auto()  # the ClientHello and what follows, counted from the CONNECT's answer
    IDLE = auto()  # the next request of a kept connection
    UPSTREAM = auto()  # the dial and the TLS handshake with the upstream
    BODY = auto()  # the rest of a body that is judged as a whole, counted from its head
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
    local: bool = False  # the peer is on this machine, so it may announce for whom it connects
    target: Authority | None = None  # of the tunnel, once one is open
    # An open connection to `target` that nobody has used yet: the next dial takes it.
    preconnected: Server | None = None
    passthrough: bool = False  # the tunnel's TLS is passed through
    websocket_request: Request | None = None  # what a WebSocket was asked for with, once it is open
    waiting: Waiting = Waiting.HEAD
    wait_id: int = 0  # counts the changes of `waiting`, so that a new wait is told from an old one
    closing: bool = False  # the proxy is shutting down: no further request on this connection
    protocol: str = field(default="")  # what is spoken inside, for the verbose log

    def wait(self, what: Waiting) -> None:
        """Say what the connection waits for from now on."""
        self.waiting = what
        self.wait_id += 1


class TimedOut(events.Event):
    """The connection has waited too long for what it waits for."""


class RuleRevoked(events.Event):
    """The rule under which this tunnel was opened is gone."""


class PauseReading(commands.Command):
    """Stop (or go on) reading from one connection: what was read cannot be used yet."""

    def __init__(self, connection: Connection, *, hold: bool) -> None:
        self.connection = connection
        self.hold = hold
