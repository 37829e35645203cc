"""Upstream connections of one HTTP/2 client: dialled when they are needed, shared, and bounded.

Judged is dialled: every one goes to the tunnel's target. An origin of HTTP/2 gets one connection
for all streams, one of HTTP/1.1 a bounded number that are used again. A stream that finds none
waits here, and one that is given up meanwhile leaves nothing behind: no dial, no credential.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import commands, events

from claude_proxy.proxy.dialer import DialError
from claude_proxy.proxy.layers.http1_upstream import Http1Upstream
from claude_proxy.proxy.layers.http2_exchange import Http2Exchange
from claude_proxy.proxy.layers.http2_origin import Http2Origin
from claude_proxy.proxy.layers.session import PauseReading, Session
from claude_proxy.proxy.layers.upstream import (
    UpstreamConnection,
    UpstreamEnded,
    UpstreamOpened,
    is_worth_another,
)
from claude_proxy.proxy.upstream_errors import TIMED_OUT, UpstreamError
from claude_proxy.proxy.warm_keys import Route
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.head import ResponseHead

_ALPN: Final = (b"h2", b"http/1.1")
# Connections of one client. A browser makes six to an origin of HTTP/1.1, npm fifteen.
MOST_CONNECTIONS: Final = 16
# Of these, how many are kept for later while they carry nothing.
_MOST_IDLE: Final = 4


class Execution(Protocol):
    """Executes commands of upstream connections."""

    def execute(self, upstream: "Upstream", several: Iterable[commands.Command]) -> None:
        """Execute commands; a reply goes back to `upstream`."""

    def has_bytes(self, upstream: "Upstream") -> None:
        """`upstream` has something to send, or to work off, before this turn ends."""


class Upstream:
    """One connection to the target, from its dial to its end."""

    def __init__(self, pool: "Http2Upstreams", wire: UpstreamConnection) -> None:
        self._pool = pool
        self.wire = wire
        self.carrier: Http1Upstream | Http2Origin | None = None
        self.waits = 0  # looks since the last step of its handshake
        self._out: list[bytes] = []
        self._has_ended = False

    @property
    def connection(self) -> Connection:
        """The connection as commands and events name it."""
        return self.wire.server

    @property
    def address(self) -> str | None:
        """The judged address that was dialled."""
        return self.wire.address

    @property
    def failure(self) -> UpstreamError:
        """Why it ended, where no response had come."""
        return self.wire.failure

    @property
    def is_untouched(self) -> bool:
        """Whether nothing of a request had reached the origin's machine when it ended."""
        return self.wire.server.is_untouched

    @property
    def queued(self) -> int:
        """The bytes that wait for the origin's windows."""
        carrier = self.carrier
        return carrier.connection.all_queued if isinstance(carrier, Http2Origin) else 0

    @property
    def ended_well(self) -> bool:
        """Whether it ended without a reset."""
        return self.wire.ended_well

    def open(self) -> None:
        """Dial, and shake hands, unless it is open."""
        if not self.wire.is_warm:
            self._pool.execution.execute(self, self.wire.open())
        self._read_inbox()

    def handle(self, event: events.Event) -> None:
        """Take an event of this connection."""
        if isinstance(event, events.OpenConnectionCompleted):
            self.waits = 0  # the handshake has a time limit of its own
        self._pool.execution.execute(self, self.wire.handle(event))
        self._read_inbox()

    def _read_inbox(self) -> None:
        inbox = self.wire.inbox
        while inbox:
            arrival = inbox.popleft()
            if isinstance(arrival, UpstreamOpened):
                self._opened(arrival.error)
            elif self.carrier is None:
                self._pool.close(self)
            elif isinstance(arrival, UpstreamEnded):
                self._has_ended = True
                self._pool.execution.has_bytes(self)
            else:
                self.carrier.feed(self.wire.with_rest(arrival))
                self._pool.execution.has_bytes(self)

    def _opened(self, error: DialError | UpstreamError | str | None) -> None:
        if error is not None:
            self._pool.failed(self, error)
            return
        session = self._pool.session
        self.wire.is_open = True
        if self.wire.server.alpn == b"h2":
            self.carrier = Http2Origin(
                self, session.head_limit, session.windows, is_warm=self.wire.is_warm
            )
        else:
            self.carrier = Http1Upstream(self, session.head_limit, is_warm=self.wire.is_warm)
        self._pool.execution.has_bytes(self)
        self._pool.opened(self)

    def step(self) -> bool:
        """Work off one frame of the origin; tell whether there was one."""
        if isinstance(self.carrier, Http2Origin) and self.carrier.step():
            return True
        if self._has_ended and self.carrier is not None:
            self._has_ended = False
            self.carrier.ended()
        return False

    @property
    def unread(self) -> int:
        """The bytes of the origin that are not worked off; at its end at least one."""
        if self._has_ended:
            return 1
        return self.carrier.connection.unread if isinstance(self.carrier, Http2Origin) else 0

    def flush(self) -> None:
        """Send what has been written in this turn, in one piece."""
        if isinstance(self.carrier, Http2Origin):
            self._out.append(self.carrier.connection.take())
        data = b"".join(self._out)
        self._out.clear()
        is_open = self.wire.server.state & ConnectionState.CAN_WRITE
        if data and is_open and self._pool.find(self.connection) is self:
            self._pool.execution.execute(self, self.wire.send(data))

    # --- what its carrier wants

    def write(self, data: bytes) -> None:
        """Send bytes when this turn ends."""
        self._out.append(data)
        self.touched()

    def answered(self, exchange: Http2Exchange, head: ResponseHead) -> None:
        """Have a connection opened for the next client, as this one needed a new one."""
        if is_worth_another(head):
            self._pool.session.keep_warm(self._pool.route, exchange.attempt)

    def touched(self) -> None:
        """Send what is to be sent, before this turn ends."""
        self._pool.execution.has_bytes(self)

    def hold(self, *, hold: bool) -> None:
        """Stop or resume reading from the origin."""
        self._pool.execution.execute(self, (PauseReading(self.connection, hold=hold),))

    def room_changed(self) -> None:
        """Let the next exchange use it."""
        self._pool.changed = True
        self.touched()

    def broken(self) -> None:
        """Close the connection."""
        self._pool.close(self)


class Http2Upstreams:
    """The upstream connections of one client, and the exchanges that wait for one."""

    def __init__(self, session: Session, target: Authority, execution: Execution) -> None:
        self.session = session
        self.execution = execution
        self.changed = False
        self.route = Route(target, tls=True, alpn=_ALPN, tunnel=True)
        self._may_take_warm = True  # once: after it, what is wanted is dialled
        self._waiting: dict[Http2Exchange, None] = {}
        self._all: dict[Connection, Upstream] = {}
        self._speaks_http1 = False  # what the last handshake settled on
        self._most = MOST_CONNECTIONS
        self._closed = False

    def find(self, connection: Connection) -> Upstream | None:
        """Return the upstream of a connection; None: it was given up."""
        return self._all.get(connection)

    @property
    def waiting(self) -> int:
        """How many exchanges wait for a connection."""
        return len(self._waiting)

    @property
    def all_queued(self) -> int:
        """The bytes that wait for the windows of origins."""
        return sum(upstream.queued for upstream in self._all.values())

    def want(self, exchange: Http2Exchange) -> None:
        """Have an exchange wait for a connection; `settle` finds one."""
        self._waiting[exchange] = None
        self.changed = True

    def forget(self, exchange: Http2Exchange) -> None:
        """Take an exchange back that has ended."""
        if exchange in self._waiting:
            del self._waiting[exchange]
            self.changed = True

    def settle(self) -> None:
        """Send what waits on the connections that there are, and dial those that are missing."""
        while self.changed and not self._closed:
            self.changed = False
            while self._waiting and (carrier := self._with_room()) is not None:
                exchange = next(iter(self._waiting))
                del self._waiting[exchange]
                exchange.send_on(carrier)
            self._dial_missing()
            self._close_needless()

    def _with_room(self) -> Http1Upstream | Http2Origin | None:
        carriers = (upstream.carrier for upstream in self._all.values())
        return next((carrier for carrier in carriers if carrier and carrier.has_room), None)

    def _dialling(self) -> list[Upstream]:
        return [upstream for upstream in self._all.values() if upstream.carrier is None]

    def _dial_missing(self) -> None:
        missing = len(self._waiting) - len(self._dialling())
        if not self._speaks_http1:
            # One carries them all, once it is open.
            missing = min(missing, 0 if self._has_shared() else 1)
        for _ in range(min(missing, self._most - len(self._all))):
            upstream = Upstream(self, self._wire_for(next(iter(self._waiting))))
            self._all[upstream.connection] = upstream
            upstream.open()

    def _wire_for(self, exchange: Http2Exchange) -> UpstreamConnection:
        """Return the connection that is kept ready, or one that is to be opened."""
        warm = self.session.take_warm(self.route, exchange.attempt) if self._may_take_warm else None
        self._may_take_warm = False
        tls = self.session.tls_for(exchange.attempt)
        return warm or UpstreamConnection(self.route.target, tls=tls, alpn=_ALPN)

    def _has_shared(self) -> bool:
        return any(
            upstream.carrier is None
            or (isinstance(upstream.carrier, Http2Origin) and not upstream.carrier.is_draining)
            for upstream in self._all.values()
        )

    def _close_needless(self) -> None:
        """Close dials that nobody waits for, and connections that are kept in vain."""
        dialling = self._dialling()
        idle = [
            upstream
            for upstream in self._all.values()
            if isinstance(upstream.carrier, Http1Upstream) and upstream.carrier.is_idle
        ]
        needless = dialling[len(self._waiting) :] if self._waiting else dialling
        for upstream in (*needless, *idle[_MOST_IDLE:]):
            self.close(upstream)

    # --- what becomes of a connection

    def opened(self, upstream: Upstream) -> None:
        """Use a connection that is open."""
        self._speaks_http1 = isinstance(upstream.carrier, Http1Upstream)
        self.changed = True

    def failed(self, upstream: Upstream, error: DialError | UpstreamError | str) -> None:
        """End what waited for a connection that could not be opened.

        Where others are open it waits for these: the origin may allow no more.
        """
        self.close(upstream)
        self._most = sum(other.carrier is not None for other in self._all.values())
        if self._most:
            return
        self._most = MOST_CONNECTIONS
        waiting, self._waiting = self._waiting, {}
        for exchange in waiting:
            exchange.fail(error)

    def close(self, upstream: Upstream) -> None:
        """Close a connection; what arrives afterwards is ignored."""
        if upstream.connection in self._all:
            upstream.flush()
            del self._all[upstream.connection]
            self.execution.execute(upstream, upstream.wire.close())
            self.changed = True

    def look(self, handshake_looks: int) -> None:
        """End handshakes that have lasted for more than so many looks."""
        self._most = MOST_CONNECTIONS
        self.changed = True
        for upstream in self._dialling():
            upstream.waits += 1
            if upstream.waits > handshake_looks and upstream.wire.address is not None:
                self.failed(upstream, TIMED_OUT)

    def renew(self) -> bool:
        """Begin the next window of each flood meter; tell whether all were at zero."""
        quiet = True
        for upstream in self._all.values():
            if isinstance(upstream.carrier, Http2Origin):
                quiet = quiet and upstream.carrier.connection.is_quiet
                upstream.carrier.connection.renew()
        return quiet

    def fail_all(self, error: UpstreamError) -> None:
        """End every exchange, whether it waits or not."""
        waiting, self._waiting = self._waiting, {}
        for exchange in waiting:
            exchange.fail(error)
        for upstream in list(self._all.values()):
            if upstream.carrier is not None:
                upstream.carrier.fail_all(error)
            else:
                self.close(upstream)

    def close_all(self) -> None:
        """Close every connection; nothing is dialled any more."""
        self._closed = True
        self._waiting.clear()
        for upstream in list(self._all.values()):
            self.close(upstream)
