"""Name lookups past the proxy: a DNS listener that resolves nothing and notes what is asked for.

A program that ignores the proxy looks its host up, which fails and does not say why. The
listener answers each query that there is no such name, and tells the launcher at the end of the run
which names were asked for. Law kept: silence before allow: nothing is resolved or passed on.

Where names have fake addresses, a `Finder` says which one; then the proxy records what it denies,
and nothing is noted here.

It runs in the relay, on sockets of the sandbox's network namespace, with the relay's few imports.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ

from claude_proxy.sandbox.relay.bridge import Loop, Timer
from claude_proxy.sandbox.relay.lookup_report import ASK
from claude_proxy.system.socket_owner import program_with_port
from claude_proxy.wire import name_query

NAMES_LIMIT = 100  # that are kept; others are only counted

_AT_ONCE = 32  # datagrams, or clients over TCP, before others have a turn
_STREAMS_LIMIT = 16
_STREAM_S = 2.0  # for a client over TCP to send its query
_ANSWER_S = 30.0  # for the answer
_PROGRAM_LIMIT = 64
_NAME_SHOWN = 253  # a host name is no longer; one with escapes may be, and is cut
_TYPES_LIMIT = 8  # of one name
_LENGTH = 2  # octets before a message over TCP (RFC 1035, section 4.2.2)

# Sends the answer to one query; it may be called later.
type Reply = Callable[[bytes], None]
# Finds the address of a name, and calls the first with four octets, or None if it has none; or the
# second if that is not known.
type Finder = Callable[[str, Callable[[bytes | None], None], Callable[[], None]], None]

# Names that lead to this machine or to nothing: looking them up does not pass the proxy by.
_OWN_ENDINGS = ("arpa", "localhost", "claude-proxy", "")


class LookedUp:
    """How often a name was looked up, and the program that asked first."""

    def __init__(self, program: str) -> None:
        self.program = program
        self._by_type: dict[int, int] = {}

    def count(self, kind: int) -> None:
        """Count a query for one type of record."""
        if kind in self._by_type or len(self._by_type) < _TYPES_LIMIT:
            self._by_type[kind] = self._by_type.get(kind, 0) + 1

    @property
    def times(self) -> int:
        """The lookups: a resolver asks for the addresses of IPv4 and IPv6 at once."""
        return max(self._by_type.values())


class NameLookups:
    """The listener, on a UDP and a TCP socket, and the channel on which the launcher asks."""

    def __init__(
        self,
        datagrams: socket.socket,
        streams: socket.socket,
        channel: socket.socket,
        init: int,
        find: Finder | None = None,
    ) -> None:
        self.names: dict[str, LookedUp] = {}
        self.others = 0  # queries for names beyond the limit
        self._datagrams = datagrams
        self._streams = streams
        self._channel = channel
        self._init = init
        self.find = find  # None: no name has an address
        self._open: dict[int, _Stream] = {}

    def watch(self, loop: Loop) -> None:
        """Answer whenever something arrives."""
        for sock in (self._datagrams, self._streams, self._channel):
            sock.setblocking(False)
        loop.watch(self._datagrams.fileno(), 0, EVENT_READ, lambda _: self._on_datagrams())
        loop.watch(self._streams.fileno(), 0, EVENT_READ, lambda _: self._on_clients(loop))
        loop.watch(self._channel.fileno(), 0, EVENT_READ, lambda _: self._on_channel(loop))

    def report(self) -> bytes:
        """Return what was noted, as `lookup_report.parse_report` reads it."""
        lines = [f"{seen.times} {name} {seen.program}" for name, seen in self.names.items()]
        return "\n".join((str(self.others), *lines)).encode("utf-8", "replace")

    def take(self, message: bytes, protocol: str, port: int, reply: Reply) -> None:
        """Answer one query that came from a local port, and note it."""
        try:
            query = name_query.parse(message)
        except ValueError:
            reply(name_query.answer(message))
            return
        if query.name.rpartition(".")[2] in _OWN_ENDINGS:
            reply(name_query.answer(message))
        elif self.find is None:
            self._note(query, protocol, port)
            reply(name_query.answer(message))
        else:
            self.find(
                query.name,
                lambda address: reply(
                    name_query.answer(message)
                    if address is None
                    else name_query.address_answer(message, query, address)
                ),
                lambda: reply(name_query.failure(message, query)),
            )

    def _note(self, query: name_query.NameQuery, protocol: str, port: int) -> None:
        name = query.name[:_NAME_SHOWN]
        seen = self.names.get(name)
        if seen is None:
            if len(self.names) >= NAMES_LIMIT:
                self.others += 1
                return
            # Before the answer: until then the program has its socket open.
            program = program_with_port(self._init, protocol, port)[:_PROGRAM_LIMIT]
            seen = LookedUp(" ".join(program.split()))
            self.names[name] = seen
        seen.count(query.kind)

    # UDP

    def _on_datagrams(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                message, sender = self._datagrams.recvfrom(name_query.MESSAGE_LIMIT)
            except OSError:
                return
            self.take(message, "udp", sender[1], partial(self._send, sender))

    def _send(self, to: tuple[str, int], answer: bytes) -> None:
        if answer:
            with suppress(OSError):
                self._datagrams.sendto(answer, to)

    # TCP

    def _on_clients(self, loop: Loop) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, sender = self._streams.accept()
            except OSError:
                return
            if len(self._open) >= _STREAMS_LIMIT:
                client.close()
                continue
            client.setblocking(False)
            stream = _Stream(client, sender[1], self, loop)
            self._open[client.fileno()] = stream
            stream.start()

    def forget(self, descriptor: int) -> None:
        """Drop a client that is done."""
        self._open.pop(descriptor, None)

    # The launcher

    def _on_channel(self, loop: Loop) -> None:
        try:
            asked = self._channel.recv(len(ASK))
        except BlockingIOError:
            return
        except OSError:
            asked = b""
        if asked != ASK:
            loop.watch(self._channel.fileno(), EVENT_READ, 0, lambda _: None)
            return
        with suppress(OSError):
            self._channel.send(self.report())


class _Stream:
    """One client over TCP: it sends one query, is answered, and hung up on."""

    def __init__(self, client: socket.socket, port: int, lookups: NameLookups, loop: Loop) -> None:
        self._client = client
        self._port = port
        self._lookups = lookups
        self._loop = loop
        self._held = b""
        self._is_reading = True
        self._timer: Timer | None = None

    def start(self) -> None:
        self._loop.watch(self._client.fileno(), 0, EVENT_READ, lambda _: self._read())
        self._set_timer(_STREAM_S)

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.later(seconds, self._close)

    def _read(self) -> None:
        try:
            piece = self._client.recv(_LENGTH + name_query.MESSAGE_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        self._held += piece
        size = int.from_bytes(self._held[:_LENGTH]) if len(self._held) >= _LENGTH else None
        if not piece or (size is not None and size > name_query.MESSAGE_LIMIT):
            self._close()
        elif size is not None and len(self._held) >= _LENGTH + size:
            message = self._held[_LENGTH : _LENGTH + size]
            self._loop.watch(self._client.fileno(), EVENT_READ, 0, lambda _: None)
            self._is_reading = False
            self._set_timer(_ANSWER_S)
            self._lookups.take(message, "tcp", self._port, self._reply)

    def _reply(self, answer: bytes) -> None:
        if self._client.fileno() >= 0:
            with suppress(OSError):
                self._client.send(len(answer).to_bytes(_LENGTH) + answer)
        self._close()

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        descriptor = self._client.fileno()
        if descriptor >= 0:
            if self._is_reading:
                self._loop.watch(descriptor, EVENT_READ, 0, lambda _: None)
            self._lookups.forget(descriptor)
            self._client.close()
