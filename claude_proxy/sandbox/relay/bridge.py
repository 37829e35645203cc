"""Copies bytes between the clients of some listening sockets and one upstream, both ways.

What one side sends the other gets, whole and in order, or else a reset: a part never passes for
the whole. Whoever reads slowly makes whoever writes wait, and never this process grow. It does not
know what it copies; only for a client whose upstream is gone does it look at the first bytes.

One thread on `selectors`, where asyncio would take three times as long to start and copy slower.
"""

import errno
import heapq
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from claude_proxy.sandbox.relay.unavailable import HEAD_LIMIT, Unavailable

type ReportLine = Callable[[str], None]
type Callback = Callable[[], None]
type OnReady = Callable[[int], None]

DEFAULT_LIMIT = 1024  # clients at once
PATIENCE_S = 1.0  # for an upstream that is restarting
CHUNK = 64 * 1024  # read at once and held at most, in each direction of a connection

_READ = selectors.EVENT_READ
_WRITE = selectors.EVENT_WRITE

_ACCEPTED_AT_ONCE = 64
_PAUSE_S = 0.2  # before accepting again, where descriptors or memory ran out
_BUSY_PATIENCE_S = 10.0  # for one that is there, but has not accepted yet
_RETRY_S = 0.02
_ANSWER_S = 10.0  # for a request to become whole that will be answered with a refusal
_LINGER_S = 2.0  # for a side that still sends what nobody will read

_GONE = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ECONNRESET})
_BUSY = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time; close then resets


class Timer:
    """Something to be done at a time, unless it is cancelled before."""

    __slots__ = ("_act", "_when")

    def __init__(self, when: float, act: Callback) -> None:
        self._when = when
        self._act: Callback | None = act

    def __lt__(self, other: "Timer") -> bool:
        return self._when < other._when

    def cancel(self) -> None:
        """Forget what was to be done, and whom it belongs to."""
        self._act = None

    def wait_s(self) -> float:
        """Return the seconds left."""
        return max(0.0, self._when - time.monotonic())

    def fire(self) -> None:
        """Do it."""
        if self._act is not None:
            self._act()


class Loop:
    """Waits for sockets and times, and calls whoever asked."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self.running = False

    def watch(self, descriptor: int, before: int, events: int, act: OnReady) -> None:
        """Wait for `events` on a descriptor that was waited for with `before`; 0 is for none."""
        if not before:
            self._selector.register(descriptor, events, act)
        elif events:
            self._selector.modify(descriptor, events, act)
        else:
            self._selector.unregister(descriptor)

    def later(self, seconds: float, act: Callback) -> Timer:
        """Call `act` after some seconds."""
        timer = Timer(time.monotonic() + seconds, act)
        heapq.heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        """Wait and call until `stop` is called."""
        self.running = True
        while self.running:
            wait_s = self._timers[0].wait_s() if self._timers else None
            for key, events in self._selector.select(wait_s):
                key.data(events)
            while self._timers and not self._timers[0].wait_s():
                heapq.heappop(self._timers).fire()

    def stop(self) -> None:
        """Let `run` return after what is being done."""
        self.running = False

    def close(self) -> None:
        """Release the selector."""
        self._selector.close()


class _Pipe:
    """One direction of a connection. What could not be sent yet is held, and stops the reading."""

    __slots__ = ("ended", "finished", "held", "refused", "sink", "source", "torn")

    def __init__(self, source: socket.socket | None, sink: socket.socket | None) -> None:
        self.source = source
        self.sink = sink  # None: nobody yet
        self.held = bytearray()
        self.ended = source is None  # the source sends no more
        self.torn = False  # ... as it was reset
        self.refused = False  # the sink takes no more: bytes for it are dropped
        self.finished = False  # and it was told of the end

    def wants_reading(self) -> bool:
        if self.ended:
            return False
        return len(self.held) < HEAD_LIMIT if self.sink is None else not self.held

    def fill(self, scratch: memoryview) -> bool:
        """Take what the source has, and pass it on; true if that went as it mostly goes."""
        if self.source is None:
            return False
        room = len(scratch) if self.sink is not None else HEAD_LIMIT - len(self.held)
        try:
            size = self.source.recv_into(scratch, room)
        except BlockingIOError:
            return False
        except OSError:
            self.ended = self.torn = True
            return False
        if size == 0:
            self.ended = True
            return False
        if self.refused:
            return False
        sent = self._send(scratch[:size])
        if sent < size:
            self.held += scratch[sent:size]
        return sent == size and not self.refused

    def drain(self) -> None:
        """Pass on what is held, as far as the sink takes it."""
        if self.held:
            with memoryview(self.held) as view:
                sent = self._send(view)
            del self.held[:sent]

    def _send(self, data: memoryview) -> int:
        if self.sink is None:
            return 0
        try:
            return self.sink.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.refused = True
            return len(data)

    def finish(self) -> None:
        """Tell the sink of the end, once all that came before it is passed on."""
        self.finished = True
        if self.sink is not None and not self.refused:
            try:
                self.sink.shutdown(socket.SHUT_WR)
            except OSError:
                self.refused = True


class _Connection:
    """One client, its upstream, and the bytes between them."""

    def __init__(self, bridge: "Bridge", client: socket.socket) -> None:
        self._bridge = bridge
        self._loop = bridge.loop
        self._client = client
        self._client_events = 0
        self._upstream: socket.socket | None = None
        self._upstream_events = 0
        self._connected = False
        self._up = _Pipe(client, None)
        self._down = _Pipe(None, client)
        self._down.ended = False
        self._unavailable: Unavailable | None = None
        self._timer: Timer | None = None
        self._since = time.monotonic()
        self._closed = False

    @property
    def held(self) -> int:
        """How many bytes wait to be passed on."""
        return len(self._up.held) + len(self._down.held)

    def start(self) -> None:
        """Reach for the upstream, and wait for the client meanwhile."""
        self._dial()
        self._settle()

    # Reaching the upstream

    def _dial(self) -> None:
        try:
            upstream = self._bridge.upstream.open()
        except OSError as error:
            self._give_up(error.errno or errno.EIO)
            return
        self._upstream = upstream
        problem = upstream.connect_ex(self._bridge.upstream.address)
        if problem == 0:
            self._dialled(upstream)
        elif problem == errno.EINPROGRESS:
            self._set_timer(_BUSY_PATIENCE_S, lambda: self._missed(errno.ETIMEDOUT))
            self._await_upstream(_WRITE)
        else:
            self._missed(problem)

    def _dialled(self, upstream: socket.socket) -> None:
        problem = upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        # To a free port of this host TCP may connect a socket with itself.
        if problem == 0 and upstream.family != socket.AF_UNIX:
            problem = _met_itself(upstream)
        if problem:
            self._missed(problem)
        else:
            self._reached()
        self._settle()

    def _missed(self, problem: int) -> None:
        self._drop_upstream()
        patience_s = _BUSY_PATIENCE_S if problem in _BUSY else self._bridge.upstream.patience_s
        spent_s = time.monotonic() - self._since
        if problem in _GONE | _BUSY and spent_s < patience_s:
            # More and more seldom, as a crowd of clients may be waiting.
            self._set_timer(max(_RETRY_S, spent_s / 4), self._dial_again)
        else:
            self._give_up(problem)
            self._settle()

    def _dial_again(self) -> None:
        self._dial()
        self._settle()

    def _reached(self) -> None:
        self._set_timer(0, None)
        self._connected = True
        self._bridge.reached()
        self._up.held[:0] = self._bridge.header
        self._up.sink = self._down.source = self._upstream
        self._up.drain()

    def _give_up(self, problem: int) -> None:
        self._bridge.missed(problem)
        self._unavailable = Unavailable()
        self._set_timer(_ANSWER_S, self.abort)

    def _answer(self, unavailable: Unavailable) -> None:
        """Tell a client whose upstream is gone; `_settle` closes it as any other."""
        self._down.held += unavailable.feed(self._up.held)
        self._up.held.clear()
        if (unavailable.over or self._up.ended) and not self._down.ended:
            self._up.refused = self._down.ended = True
            self._set_timer(0, None)
        self._down.drain()

    # Copying

    def _on_client(self, events: int) -> None:
        if self._closed:  # by an earlier event of the same round
            return
        if events & _READ and self._up.wants_reading():
            calm = self._up.fill(self._bridge.scratch)
            if calm and events == _READ:
                return  # nothing has changed
        if events & _WRITE:
            self._down.drain()
        self._settle()

    def _on_upstream(self, events: int) -> None:
        upstream = self._upstream
        if self._closed or upstream is None:
            return
        if not self._connected:
            self._dialled(upstream)
            return
        # Reading first: an upstream that answers and closes may have sent more than its reset.
        if events & _READ and self._down.wants_reading():
            calm = self._down.fill(self._bridge.scratch)
            if calm and events == _READ:
                return
        if events & _WRITE:
            self._up.drain()
        self._settle()

    def _settle(self) -> None:
        """Pass on the ends of what is through, and wait for what comes next."""
        if self._closed:
            return
        if self._unavailable is not None:
            self._answer(self._unavailable)
        up, down = self._up, self._down
        if (up.torn and not self._connected) or not (self._end(up, down) and self._end(down, up)):
            self.abort()
        elif up.finished and down.finished:
            self._close()
        else:
            if (up.refused and down.finished) or (down.refused and up.finished):
                self._linger()
            self._await_client()
            if self._connected:
                self._await_upstream((down.wants_reading() and _READ) | ((up.held and _WRITE) or 0))

    def _end(self, pipe: _Pipe, back: _Pipe) -> bool:
        """Finish `pipe` if it is through; false if its end is no proper one."""
        if not pipe.ended or pipe.held or pipe.finished or (pipe.sink is None and not pipe.refused):
            return True
        if pipe.torn:
            # An upstream that closes without having read everything resets too, as a proxy does
            # that answers before a request's end: then what it said counts.
            if pipe is self._up or not (back.held or back.refused):
                return False
            back.refused = True
            back.held.clear()
        pipe.finish()
        return True

    def _linger(self) -> None:
        # Closing at once would reset whoever is still sending, and with the reset it may lose
        # what it has not read yet: RFC 9112, section 9.6.
        if self._timer is None:
            self._set_timer(_LINGER_S, self._close)

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
        """End with a reset both ways, where the sockets know one."""
        for end in (self._client, self._upstream):
            if end is not None and end.family != socket.AF_UNIX:
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self._close()


def _met_itself(upstream: socket.socket) -> int:
    try:
        return errno.ECONNREFUSED if upstream.getsockname() == upstream.getpeername() else 0
    except OSError as error:
        return error.errno or errno.EIO


class RelayTarget:
    """Where every connection goes: a Unix socket or an address of TCP."""

    def __init__(
        self,
        name: str,
        family: socket.AddressFamily,
        address: str | tuple[str, int],
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.name = name
        self.family = family
        self.address = address
        self.patience_s = patience_s

    def open(self) -> socket.socket:
        """Return a socket that can be connected to it without waiting."""
        opened = socket.socket(self.family, socket.SOCK_STREAM)
        return _prepared(opened)


def _words_of(problem: int | None) -> str:
    return os.strerror(problem or 0).lower()


def _prepared(stream: socket.socket) -> socket.socket:
    stream.setblocking(False)
    if stream.family != socket.AF_UNIX:
        with suppress(OSError):  # it was reset already
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


class Bridge:
    """Accepts on listening sockets, and joins each client with a connection of its own."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        upstream: RelayTarget,
        *,
        header: bytes = b"",
        limit: int = DEFAULT_LIMIT,
        report: ReportLine = lambda _line: None,
    ) -> None:
        self.loop = Loop()
        self.upstream = upstream
        self.header = header  # with which each connection to the upstream begins
        self.scratch = memoryview(bytearray(CHUNK))
        self._listeners = tuple(listeners)
        self._limit = limit
        self._report = report
        self._connections: set[_Connection] = set()
        self._accepting = False
        self._pause: Timer | None = None
        self._missed = 0

    @property
    def connections(self) -> int:
        """How many clients there are."""
        return len(self._connections)

    @property
    def held(self) -> int:
        """How many bytes were read and could not be passed on yet."""
        return sum(connection.held for connection in self._connections)

    def run(self) -> None:
        """Serve until `loop.stop()`; then break off what is left."""
        for listener in self._listeners:
            listener.setblocking(False)
        self._accept_more()
        try:
            self.loop.run()
        finally:
            self._accept_no_more()
            for connection in tuple(self._connections):
                connection.abort()
            self.loop.close()

    def _accept_more(self) -> None:
        self._pause = None
        if not self._accepting and len(self._connections) < self._limit:
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
            connection = _Connection(self, _prepared(client))
            self._connections.add(connection)
            if len(self._connections) >= self._limit:
                self._accept_no_more()  # the rest waits in the backlog
            connection.start()

    def _not_accepted(self, error: OSError) -> None:
        # Whatever it is, trying again at once could go on for ever: the event stays.
        if not isinstance(error, BlockingIOError | ConnectionAbortedError | InterruptedError):
            self._report(f"cannot accept a connection for a moment ({_words_of(error.errno)})")
            self._accept_no_more()
            self._pause = self.loop.later(_PAUSE_S, self._accept_more)

    def forget(self, connection: _Connection) -> None:
        """Make room for the next client."""
        self._connections.discard(connection)
        if not self._accepting and self._pause is None and self.loop.running:
            self._accept_more()

    def reached(self) -> None:
        """Note that the upstream is there."""
        if self._missed:
            self._missed = 0
            self._report(f"{self.upstream.name} is there again")

    def missed(self, problem: int) -> None:
        """Note that a client could not be joined; told once, not for every client."""
        if problem != self._missed:
            self._missed = problem
            self._report(f"cannot reach {self.upstream.name} ({_words_of(problem)})")
