"""Questions to the proxy whether a name that was looked up in the sandbox may have an address.

Law kept: one judge, and silence before allow. The relay knows no rules: for each lookup it asks the
proxy, on the run's own socket, which decides, records, and resolves nothing. No answer is a denial.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE

from claude_proxy.sandbox.relay.bridge import Loop, Timer, prepared
from claude_proxy.sandbox.relay.relay_target import RelayTarget
from claude_proxy.wire import lookup_answer, proxy_protocol

# Called with the ports at which the name may be reached: none if it may not, or None if the proxy
# gave no answer.
type OnPorts = Callable[[tuple[int, ...] | None], None]

_AT_ONCE = 64  # different names
_QUEUE_LIMIT = 512  # names that are asked about after these
_WAITING_LIMIT = 64  # clients that wait for one name
_RETRY_S = 0.1
_PATIENCE_S = 20.0  # the proxy may still be starting; C libraries ask again for about as long


class NameQuestions:
    """Asks about several names at a time, about each once."""

    def __init__(self, loop: Loop, proxy: RelayTarget, header: bytes) -> None:
        self._loop = loop
        self._proxy = proxy
        self._header = header
        self._open: dict[str, _Question] = {}  # the first ones are being asked, in order
        self._asking: set[str] = set()

    def ask(self, name: str, on_ports: OnPorts) -> None:
        """Ask about a name; a question that is already open is not asked twice."""
        question = self._open.get(name)
        if question is None:
            if len(self._open) >= _AT_ONCE + _QUEUE_LIMIT:
                on_ports(None)
                return
            asked = proxy_protocol.asking(self._header, name)
            question = _Question(self._loop, self._proxy, asked, lambda: self._forget(name))
            self._open[name] = question
        question.add(on_ports)
        self._start_more()

    def _start_more(self) -> None:
        for name in self._open:
            if len(self._asking) >= _AT_ONCE:
                break
            if name not in self._asking:
                self._asking.add(name)
                self._open[name].start()

    def _forget(self, name: str) -> None:
        self._open.pop(name, None)
        self._asking.discard(name)
        self._loop.later(0, self._start_more)

    def close(self) -> None:
        """Give up all questions, without an answer to anybody."""
        for question in self._open.values():
            question.drop()
        self._open.clear()


class _Question:
    """One question, on a connection of its own."""

    def __init__(
        self, loop: Loop, proxy: RelayTarget, asked: bytes, forget: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._proxy = proxy
        self._asked = asked
        self._forget = forget
        self._waiting: list[OnPorts] = []
        self._heard = b""
        self._socket: socket.socket | None = None
        self._events = 0
        self._timer: Timer | None = None
        self._give_up = loop.later(_PATIENCE_S, lambda: self._end(None))

    def add(self, on_ports: OnPorts) -> None:
        if len(self._waiting) < _WAITING_LIMIT:
            self._waiting.append(on_ports)
        else:
            on_ports(None)

    def start(self) -> None:
        """Connect to the proxy."""
        self._timer = None
        family, address = self._proxy.family, self._proxy.address
        try:
            self._socket = prepared(socket.socket(family, socket.SOCK_STREAM))
            self._socket.connect(address)
        except BlockingIOError:  # in progress over TCP, or a full backlog, which is not yet served
            if family == socket.AF_UNIX:
                self._again()
                return
        except OSError:
            self._again()
            return
        self._watch(EVENT_WRITE)

    def _again(self) -> None:
        self.drop()
        self._timer = self._loop.later(_RETRY_S, self.start)

    def _ready(self, events: int) -> None:
        if self._socket is None:
            return
        try:
            if events & EVENT_WRITE:
                self._send(self._socket)
                return
            data = self._socket.recv(lookup_answer.LIMIT)
        except BlockingIOError:
            return
        except OSError:
            # It was reset, or never connected: asking twice does no harm.
            self._again()
            return
        self._heard += data
        if not data or b"\n" in self._heard or len(self._heard) > lookup_answer.LIMIT:
            self._end(lookup_answer.decode(self._heard) if self._heard else None)

    def _send(self, sock: socket.socket) -> None:
        if sock.send(self._asked) == len(self._asked):  # its buffer holds much more
            self._watch(EVENT_READ)
        else:
            self._end(None)

    def _watch(self, events: int) -> None:
        if self._socket is not None and events != self._events:
            self._loop.watch(self._socket.fileno(), self._events, events, self._ready)
            self._events = events

    def drop(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._watch(0)
            with suppress(OSError):
                self._socket.close()
            self._socket = None

    def _end(self, ports: tuple[int, ...] | None) -> None:
        self.drop()
        for timer in (self._timer, self._give_up):
            if timer is not None:
                timer.cancel()
        self._forget()
        waiting, self._waiting = self._waiting, []
        for on_ports in waiting:
            on_ports(ports)
