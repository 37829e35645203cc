"""Byte relay between the clients of listening sockets and one upstream.

Law kept: a part never passes for the whole. What one side sends, the other side receives completely
and in order, or it receives a reset. A slow reader makes the writer wait, and memory use is
bounded. The content is not inspected, except for the first bytes of a client whose upstream is
unreachable. The states of a connection and the events that end it are in `pipe_states`.

It runs in one thread on `selectors`: asyncio takes three times as long to start, and copies more
slowly.
"""

import errno
import fcntl
import heapq
import os
import select
import selectors
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from claude_proxy.sandbox.relay.pipe_states import (
    NextStep,
    PipeEvent,
    PipeState,
    is_early_close,
    next_state,
    next_step,
)
from claude_proxy.sandbox.relay.relay_target import RelayTarget
from claude_proxy.sandbox.relay.tunnel_opening import TunnelOpening, TunnelRefusedError
from claude_proxy.sandbox.relay.unavailable import HEAD_LIMIT, Unavailable

type ReportLine = Callable[[str], None]
type Callback = Callable[[], None]
type OnReady = Callable[[int], None]
type MonotonicClock = Callable[[], float]
# None: the client is refused.
type OpeningFor = Callable[[socket.socket], TunnelOpening | None]

DEFAULT_LIMIT = 1024  # clients at once
CHUNK = 64 * 1024  # most bytes read at once, and held in each direction of a connection

_READ = selectors.EVENT_READ
_WRITE = selectors.EVENT_WRITE

_ACCEPTED_AT_ONCE = 64
_PAUSE_S = 0.2  # before accepting again after running out of descriptors or memory
_BUSY_PATIENCE_S = 10.0  # for an upstream that listens but has not accepted yet
_RETRY_S = 0.02
_REFUSALS_KEPT = 64
_ANSWER_S = 10.0  # for the rest of a request that will be answered with an error
_OPENING_S = 60.0  # for the answer to a CONNECT; a proxy that dials first may take long
_LINGER_S = 2.0  # for a side that still sends data, which is discarded
_DELIVERY_S = 10.0  # for the last bytes, to a side that does not read them
# Between looks whether an upstream that has ended its half has closed the other one too.
_HANG_UP_S = 1.0

_GONE = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ECONNRESET})
_BUSY = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, with a timeout of zero

# Module names, as looking up an enum's members costs more than a comparison.
_FLOWING, _DISCARDING = PipeState.FLOWING, PipeState.DISCARDING
_DRAINING, _TORN = PipeState.DRAINING, PipeState.TORN


class Timer:
    """A callback that runs at a given time, unless it is cancelled before."""

    __slots__ = ("_callback", "when")

    def __init__(self, when: float, callback: Callback) -> None:
        self.when = when
        self._callback: Callback | None = callback

    def __lt__(self, other: "Timer") -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        """Drop the callback and everything it refers to."""
        self._callback = None

    def fire(self) -> None:
        """Run the callback."""
        if self._callback is not None:
            self._callback()


class Loop:
    """An event loop: waits for descriptors and timers, and runs their callbacks."""

    def __init__(self) -> None:
        self.now: MonotonicClock = time.monotonic
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self.running = False

    def watch(self, descriptor: int, before: int, events: int, callback: OnReady) -> None:
        """Wait for `events` on a descriptor instead of the events `before`; 0 means none."""
        if not before:
            self._selector.register(descriptor, events, callback)
        elif events:
            self._selector.modify(descriptor, events, callback)
        else:
            self._selector.unregister(descriptor)

    def later(self, seconds: float, callback: Callback) -> Timer:
        """Run `callback` after some seconds."""
        timer = Timer(self.now() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        """Wait and run callbacks until `stop` is called."""
        self.running = True
        while self.running:
            self.step(max(0.0, self._timers[0].when - self.now()) if self._timers else None)

    def step(self, wait_s: float | None) -> None:
        """Wait once, `wait_s` at most, and run what is ready and what is due."""
        for key, events in self._selector.select(wait_s):
            key.data(events)
        now = self.now()  # once: a callback that sets a timer anew must not keep sockets waiting
        while self._timers and self._timers[0].when <= now:
            heapq.heappop(self._timers).fire()

    def stop(self) -> None:
        """Let `run` return after the current callbacks."""
        self.running = False

    def close(self) -> None:
        """Release the selector."""
        self._selector.close()


class _Pipe:
    """One direction of a connection; while it holds unsent bytes, it does not read more."""

    __slots__ = ("held", "sink", "sink_was_reset", "source", "state")

    def __init__(self, source: socket.socket | None, sink: socket.socket | None) -> None:
        self.source = source  # None: not connected yet
        self.sink = sink  # None: not connected yet
        self.held = bytearray()
        self.state = _FLOWING
        self.sink_was_reset = False

    def apply(self, event: PipeEvent) -> None:
        """Move to the next state; what is held for a sink that takes no more is dropped."""
        self.state = next_state(self.state, event)
        if event is PipeEvent.REFUSED:
            self.held.clear()

    @property
    def is_sending(self) -> bool:
        """Whether the source may send more."""
        return self.state is _FLOWING or self.state is _DISCARDING

    def wants_reading(self) -> bool:
        if self.state is not _FLOWING and self.state is not _DISCARDING:
            return False
        return len(self.held) < HEAD_LIMIT if self.sink is None else not self.held

    @property
    def is_delivered(self) -> bool:
        """Whether nothing is held, and the sink is connected, so that an end can be passed on."""
        return not self.held and self.sink is not None

    def fill(self, scratch: memoryview) -> bool:
        """Read from the source and pass it on; true if all was sent and the state is unchanged."""
        if self.source is None:
            return False
        room = len(scratch) if self.sink is not None else HEAD_LIMIT - len(self.held)
        try:
            size = self.source.recv_into(scratch, room)
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                self.apply(PipeEvent.RESET)
            return False
        if size == 0:
            self.apply(PipeEvent.END)
            return False
        if self.state is _DISCARDING:
            return False
        sent = self._send(scratch[:size])
        if sent == size:
            return True
        if sent < 0:
            self.apply(PipeEvent.REFUSED)
        else:
            self.held += scratch[sent:size]
        return False

    def drain(self) -> None:
        """Pass on what is held, as far as the sink takes it."""
        if self.held:
            with memoryview(self.held) as view:
                sent = self._send(view)
            if sent < 0:
                self.apply(PipeEvent.REFUSED)
            else:
                del self.held[:sent]

    def _send(self, data: memoryview) -> int:
        """Return how many bytes the sink accepted, or -1 if it accepts no more."""
        if self.sink is None:
            return 0
        try:
            return self.sink.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            # The kernel reports a reset only once: a later read would find an end of file.
            self.sink_was_reset = self.sink_was_reset or error.errno == errno.ECONNRESET
            return -1

    def finish(self) -> None:
        """Pass the end on to the sink, after everything else."""
        self.apply(PipeEvent.DELIVERED)
        if self.sink is not None:
            try:
                self.sink.shutdown(socket.SHUT_WR)
            except OSError:
                self.apply(PipeEvent.REFUSED)


class _Connection:
    """One client, its upstream, and the bytes between them."""

    def __init__(
        self, bridge: "Bridge", client: socket.socket, opening: TunnelOpening | None
    ) -> None:
        self._bridge = bridge
        self._loop = bridge.loop
        self._client = client
        self._client_events = 0
        self._upstream: socket.socket | None = None
        self._upstream_events = 0
        self._connected = False
        self._up = _Pipe(client, None)
        self._down = _Pipe(None, client)
        # What asks the upstream for a tunnel, until it has answered; None: it is asked for none.
        self._opening = opening
        self._asking = b""  # of that, what is not sent yet
        self._is_asked = False
        self._dials = 0
        self._unavailable: Unavailable | None = None
        self._timer: Timer | None = None
        self._since = bridge.loop.now()
        self._closed = False
        self._hang_up_by = 0.0  # when lingering ends, whatever is not delivered by then

    @property
    def held(self) -> int:
        """The number of bytes read but not passed on yet."""
        return len(self._up.held) + len(self._down.held)

    def start(self) -> None:
        """Start to connect to the upstream, and to read from the client."""
        self._dial()
        self._settle()

    # Connecting to the upstream

    def _dial(self) -> None:
        target = self._bridge.upstream
        place = target.places[self._dials % len(target.places)]
        self._dials += 1
        try:
            upstream = prepared(target.open(place[0]))
        except OSError as error:
            self._give_up(error.errno or errno.EIO)
            return
        self._upstream = upstream
        problem = upstream.connect_ex(place[1])
        if problem == 0:
            self._dialled(upstream)
        elif problem == errno.EINPROGRESS:
            self._set_timer(_BUSY_PATIENCE_S, lambda: self._missed(errno.ETIMEDOUT))
            self._await_upstream(_WRITE)
        else:
            self._missed(problem)

    def _dialled(self, upstream: socket.socket) -> None:
        problem = upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        # TCP may connect a socket to itself if the port is a free local one.
        if problem == 0 and upstream.family != socket.AF_UNIX:
            problem = _self_connected(upstream)
        if problem:
            self._missed(problem)
        else:
            self._reached()
        self._settle()

    def _missed(self, problem: int) -> None:
        self._drop_upstream()
        patience_s = _BUSY_PATIENCE_S if problem in _BUSY else self._bridge.upstream.patience_s
        spent_s = self._loop.now() - self._since
        if problem in _GONE | _BUSY and spent_s < patience_s:
            # With growing pauses, because many clients may be waiting.
            all_tried = self._dials % len(self._bridge.upstream.places) == 0
            pause_s = max(_RETRY_S, spent_s / 4) if all_tried else 0
            self._set_timer(pause_s, self._dial_again)
        else:
            self._give_up(problem)
            self._settle()

    def _dial_again(self) -> None:
        self._dial()
        self._settle()

    def _reached(self) -> None:
        self._set_timer(0, None)
        self._bridge.reached()
        if self._opening is not None:
            self._is_asked = True
            self._asking = self._bridge.header + self._opening.request
            self._set_timer(_OPENING_S, self.abort)
            self._ask()
            return
        self._up.held[:0] = self._bridge.header
        self._join()

    def _join(self) -> None:
        """Let bytes flow between the client and the upstream."""
        self._connected = True
        self._up.sink = self._down.source = self._upstream
        self._up.drain()
        self._down.drain()

    def _ask(self) -> None:
        """Send the request for a tunnel, and wait for its answer."""
        if self._upstream is not None and self._asking:
            with suppress(OSError):  # what is wrong shows when the answer is read
                self._asking = self._asking[self._upstream.send(self._asking) :]
        self._await_upstream(_READ | (_WRITE if self._asking else 0))

    def _hear(self, upstream: socket.socket, opening: TunnelOpening) -> None:
        """Read the answer to the request for a tunnel; what follows it is for the client."""
        try:
            data = upstream.recv(HEAD_LIMIT)
            rest = opening.feed(data) if data else None
        except BlockingIOError:
            return
        except OSError as error:
            self._refused(opening, _words_of(error.errno))
        except TunnelRefusedError as refused:
            self._refused(opening, str(refused), show=opening.is_http)
        else:
            if not data:
                self._refused(opening, "it closed the connection")
            elif rest is not None:
                self._opening = None
                self._set_timer(0, None)
                self._down.held += rest
                self._join()

    def _refused(self, opening: TunnelOpening, reason: str, *, show: bool = False) -> None:
        """Reset a client whose tunnel is refused; or `show` it the answer, which it understands."""
        self._bridge.refused(opening.target, reason)
        if not show:
            self.abort()
            return
        self._opening = None
        self._set_timer(_ANSWER_S, self.abort)
        self._up.apply(PipeEvent.REFUSED)
        self._down.held += opening.answer
        self._join()

    def _give_up(self, problem: int) -> None:
        self._bridge.missed(problem)
        if self._opening is not None or not self._bridge.upstream.is_proxy:
            self.abort()  # the client speaks to a server, and knows nothing of a relay
            return
        self._unavailable = Unavailable()
        self._set_timer(_ANSWER_S, self.abort)

    def _answer(self, unavailable: Unavailable) -> None:
        """Answer a client whose upstream is unreachable; `_settle` closes it like any other."""
        up, down = self._up, self._down
        down.held += unavailable.feed(up.held)
        up.held.clear()
        if (unavailable.over or not up.is_sending) and down.is_sending:
            up.apply(PipeEvent.REFUSED)
            down.apply(PipeEvent.END)
            self._set_timer(0, None)
        down.drain()

    # Copying

    def _on_client(self, events: int) -> None:
        if self._closed:  # by an earlier event of the same step
            return
        if events & _READ and self._up.wants_reading():
            unchanged = self._up.fill(self._bridge.scratch)
            if unchanged and events == _READ:
                return
        if events & _WRITE:
            self._down.drain()
        self._settle()

    def _on_upstream(self, events: int) -> None:
        upstream = self._upstream
        if self._closed or upstream is None:
            return
        if not self._connected:
            self._before_joined(upstream, events)
            return
        # Read first: an upstream that answered and closed may have sent data before its reset.
        if events & _READ and self._down.wants_reading():
            unchanged = self._down.fill(self._bridge.scratch)
            if unchanged and events == _READ:
                return
        if events & _WRITE:
            self._up.drain()
        self._settle()

    def _before_joined(self, upstream: socket.socket, events: int) -> None:
        if self._opening is None or not self._is_asked:
            self._dialled(upstream)
            return
        if events & _WRITE:
            self._ask()
        if events & _READ:
            self._hear(upstream, self._opening)
        self._settle()

    def _settle(self) -> None:
        """Pass on the ends of pipes that are finished, and wait for the next event."""
        if self._closed:
            return
        if self._unavailable is not None:
            self._answer(self._unavailable)
        if self._is_broken():
            self.abort()
            return
        up, down = self._up, self._down
        step = next_step(up.state, down.state)
        if step is NextStep.CLOSE:
            self._close()
            return
        if step is NextStep.LINGER:
            self._linger()
        elif step is NextStep.AWAIT_HANG_UP and self._timer is None:
            self._set_timer(_HANG_UP_S, self._look_for_hang_up)
        self._await_client()
        if self._connected:
            self._await_upstream((down.wants_reading() and _READ) | ((up.held and _WRITE) or 0))

    def _is_broken(self) -> bool:
        """Pass on ends, each after the bytes before it; true if a reset must be passed on."""
        up, down = self._up, self._down
        if down.sink_was_reset:
            up.apply(PipeEvent.RESET)
        if up.state is _DRAINING and up.is_delivered:
            up.finish()
        if down.state is _DRAINING and down.is_delivered:
            down.finish()
        elif down.state is _TORN and down.is_delivered:
            if not is_early_close(up.state, holds_bytes=bool(up.held)):
                return True
            up.apply(PipeEvent.REFUSED)
            down.finish()
        return up.state is _TORN and (not up.held or not self._connected)

    def _linger(self) -> None:
        # Closing at once would reset a side that is still sending, and the reset can destroy what
        # that side has not read yet: RFC 9112, section 9.6.
        if self._timer is None:
            self._hang_up_by = self._loop.now() + _DELIVERY_S
            self._set_timer(_LINGER_S, self._hang_up)

    def _look_for_hang_up(self) -> None:
        """Notice that an upstream closed for good: no event reports it once its end was read."""
        self._set_timer(0, None)
        if self._upstream is not None and _has_hung_up(self._upstream):
            self._up.apply(PipeEvent.REFUSED)
        self._settle()

    def _hang_up(self) -> None:
        """Close for good: with a reset, as a side that only waits does not notice another close.

        A reset would discard what the kernel has not delivered yet, so that is waited for a while.
        """
        ends = (self._client, self._upstream)
        if not any(end is not None and _undelivered(end) for end in ends):
            self.abort()
        elif self._loop.now() < self._hang_up_by:
            self._set_timer(_LINGER_S, self._hang_up)
        else:
            self._close()

    # Waiting

    def _await_client(self) -> None:
        wanted = (_READ if self._up.wants_reading() else 0) | (_WRITE if self._down.held else 0)
        if wanted != self._client_events:
            self._loop.watch(self._client.fileno(), self._client_events, wanted, self._on_client)
            self._client_events = wanted

    def _await_upstream(self, wanted: int) -> None:
        if self._upstream is not None and wanted != self._upstream_events:
            descriptor = self._upstream.fileno()
            self._loop.watch(descriptor, self._upstream_events, wanted, self._on_upstream)
            self._upstream_events = wanted

    def _set_timer(self, seconds: float, act: Callback | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if act is None else self._loop.later(seconds, act)

    # Ending

    def _drop_upstream(self) -> None:
        if self._upstream is not None:
            self._await_upstream(0)
            self._upstream.close()
            self._upstream = None

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._set_timer(0, None)
        self._drop_upstream()
        if self._client_events:
            self._loop.watch(self._client.fileno(), self._client_events, 0, self._on_client)
        self._client.close()
        self._bridge.forget(self)

    def abort(self) -> None:
        """Close both sides with a reset; a Unix socket has none, and is just closed."""
        for end in (self._client, self._upstream):
            if end is not None and end.family != socket.AF_UNIX:
                _reset_on_close(end)
        self._close()


def _reset_on_close(stream: socket.socket) -> None:
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def _reset(stream: socket.socket) -> None:
    _reset_on_close(stream)
    stream.close()


def _has_hung_up(stream: socket.socket) -> bool:
    """Return whether the peer has closed both directions, or reset."""
    poll = select.poll()
    poll.register(stream, 0)  # what is asked for is reported without being named
    return bool(poll.poll(0))


def _undelivered(stream: socket.socket) -> int:
    """Return how many bytes have not reached the peer's kernel yet."""
    if stream.family == socket.AF_UNIX:
        return 0  # they are in the peer's buffer at once
    try:
        return int.from_bytes(fcntl.ioctl(stream, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def _self_connected(upstream: socket.socket) -> int:
    try:
        return errno.ECONNREFUSED if upstream.getsockname() == upstream.getpeername() else 0
    except OSError as error:
        return error.errno or errno.EIO


def _words_of(problem: int | None) -> str:
    return os.strerror(problem or 0).lower()


def prepared(stream: socket.socket) -> socket.socket:
    """Return a socket that does not block, and sends what is written at once."""
    stream.setblocking(False)
    if stream.family != socket.AF_UNIX:
        with suppress(OSError):  # it was reset already
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


class Bridge:
    """Accepts clients on listening sockets, and connects each to the upstream."""

    def __init__(  # noqa: PLR0913 - what each connection begins with, and what all share
        self,
        listeners: Sequence[socket.socket],
        upstream: RelayTarget,
        *,
        header: bytes = b"",
        limit: int = DEFAULT_LIMIT,
        report: ReportLine = lambda _line: None,
        loop: Loop | None = None,
        opening_for: OpeningFor | None = None,
    ) -> None:
        self.loop = loop or Loop()  # several bridges may share one
        self.upstream = upstream
        self.header = header  # sent first on each connection to the upstream
        # What asks the upstream for the tunnel of a client; None: clients ask themselves.
        self.opening_for = opening_for
        self.scratch = memoryview(bytearray(CHUNK))
        self._listeners = list(listeners)
        self._limit = limit
        self._report = report
        self._connections: set[_Connection] = set()
        self._accepting = False
        self._pause: Timer | None = None
        self._missed = 0
        self._is_closed = False
        self._refusals: set[tuple[str, str]] = set()
        self.accepted = 0  # clients, so far

    @property
    def connections(self) -> int:
        """The number of clients."""
        return len(self._connections)

    @property
    def held(self) -> int:
        """The number of bytes read but not passed on yet."""
        return sum(connection.held for connection in self._connections)

    def run(self, beside: "Sequence[Bridge]" = ()) -> None:
        """Serve until `loop.stop()`, with those that share the loop; then reset what is left."""
        bridges = (self, *beside)
        for bridge in bridges:
            bridge.open()
        try:
            self.loop.run()
        finally:
            for bridge in bridges:
                bridge.close()
            self.loop.close()

    def open(self) -> None:
        """Begin to accept clients."""
        for listener in self._listeners:
            listener.setblocking(False)
        self._accept_more()

    def add(self, listener: socket.socket) -> None:
        """Accept clients of one more listening socket, at any time."""
        listener.setblocking(False)
        self._listeners.append(listener)
        if self._accepting:
            self.loop.watch(listener.fileno(), 0, _READ, partial(self._accept, listener))

    def retire(self) -> None:
        """Accept no more; the connections that there are may go on."""
        self._is_closed = True
        self._accept_no_more()
        if self._pause is not None:
            self._pause.cancel()

    def close(self) -> None:
        """Accept no more, and reset the remaining connections."""
        self.retire()
        for connection in tuple(self._connections):
            connection.abort()

    def _accept_more(self) -> None:
        self._pause = None
        if not self._accepting and not self._is_closed and len(self._connections) < self._limit:
            self._accepting = True
            for listener in self._listeners:
                self.loop.watch(listener.fileno(), 0, _READ, partial(self._accept, listener))

    def _accept_no_more(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self._listeners:
                self.loop.watch(listener.fileno(), _READ, 0, lambda _events: None)

    def _accept(self, listener: socket.socket, _events: int) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            if not self._accepting:
                return
            try:
                client, _ = listener.accept()
            except OSError as error:
                self._not_accepted(error)
                return
            self.accepted += 1
            opening = None if self.opening_for is None else self.opening_for(client)
            if self.opening_for is not None and opening is None:
                _reset(client)
                continue
            connection = _Connection(self, prepared(client), opening)
            self._connections.add(connection)
            if len(self._connections) >= self._limit:
                self._accept_no_more()  # the rest waits in the backlog
            connection.start()

    def _not_accepted(self, error: OSError) -> None:
        # Do not retry at once: the socket stays ready, and this would become a busy loop.
        if not isinstance(error, BlockingIOError | ConnectionAbortedError | InterruptedError):
            self._report(f"cannot accept connections for a moment ({_words_of(error.errno)})")
            self._accept_no_more()
            self._pause = self.loop.later(_PAUSE_S, self._accept_more)

    def forget(self, connection: _Connection) -> None:
        """Drop a connection that has ended, and make room for the next client."""
        self._connections.discard(connection)
        if not self._accepting and self._pause is None and self.loop.running:
            self._accept_more()

    def refused(self, target: str, reason: str) -> None:
        """Note that the upstream opened no tunnel; report each reason once."""
        if (target, reason) not in self._refusals and len(self._refusals) < _REFUSALS_KEPT:
            self._refusals.add((target, reason))
            self._report(f"{self.upstream.name} opens no tunnel to {target}: {reason}")

    def reached(self) -> None:
        """Note that the upstream has been reached."""
        if self._missed:
            self._missed = 0
            self._report(f"{self.upstream.name} is reachable again")

    def missed(self, problem: int) -> None:
        """Note that the upstream could not be reached; report it once, not for every client."""
        if problem != self._missed:
            self._missed = problem
            self._report(f"cannot reach {self.upstream.name} ({_words_of(problem)})")
