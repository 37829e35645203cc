"""Serves every address of the test's internet and writes down all that arrives there.

What an origin saw is the judge of a test: the connection, the server name, the very bytes of
each request head, the body. One site per host name; a name without a site of its own gets
the routes of `routes.py`.
"""

import hashlib
import itertools
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .namespaces import Namespace
from .pki import Pki

TLS_PORTS = (443, 8443)
PLAIN_PORTS = (80, 22)

_BODY_KEPT = 1024 * 1024
_PIECE = 64 * 1024
_POLL_INTERVAL_S = 0.05
_NO_SERVER_NAME = "unnamed.test"


@dataclass
class Arrival:
    """One accepted TCP connection."""

    number: int
    address: str
    port: int
    first: bytes = b""  # its first bytes, as they came
    server_name: str | None = None
    secured: bool = False  # the TLS handshake was finished
    closed: bool = False


@dataclass
class Exchange:
    """One request as the origin saw it."""

    arrival: Arrival
    method: str
    target: str
    head: bytes  # word for word, with its last empty line
    headers: list[tuple[str, str]]
    version: str = "HTTP/1.1"
    body: bytes = b""  # its beginning
    body_bytes: int = 0
    complete: bool = False  # the whole body was read
    trailers: bytes = b""
    sent_bytes: int = 0
    broken: bool = False  # the connection ended under the answer
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256, repr=False)

    def header(self, name: str) -> str | None:
        """Return the first field of that name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def took_in(self, piece: bytes) -> None:
        """Note a piece of the body."""
        if len(self.body) < _BODY_KEPT:
            self.body += piece[: _BODY_KEPT - len(self.body)]
        self.body_bytes += len(piece)
        self.digest.update(piece)


class Gate:
    """Holds an origin back until the test lets it go on: causality in place of time."""

    def __init__(self) -> None:
        self._passes = threading.Semaphore(0)
        self.reached = threading.Event()

    def open(self, passes: int = 1) -> None:
        """Let the origin pass so many times."""
        self._passes.release(passes)

    def passed(self, patience_s: float) -> bool:
        """Wait for a pass, as the origin, and tell whether one came."""
        self.reached.set()
        return self._passes.acquire(timeout=patience_s)


class Talk:
    """One connection's stream, as a handler uses it."""

    def __init__(self, stream: socket.socket, arrival: Arrival, origin: "Origin") -> None:
        self.stream = stream
        self.arrival = arrival
        self.origin = origin
        self.reader = stream.makefile("rb")
        self.over = False  # set by a handler whose answer ends with the connection

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.stream.sendall(data)

    def wait(self, name: str) -> None:
        """Wait at the gate of that name, but not for a client that has gone."""
        gate = self.origin.gate(name)
        while not gate.passed(_POLL_INTERVAL_S):
            if select.select([self.stream], [], [], 0)[0]:
                raise ConnectionAbortedError("the other side has ended the connection")

    def answer(self, status: str, body: bytes = b"", *fields: str) -> None:
        """Write a whole answer with its length."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def read_head(self) -> Exchange | None:
        """Read the next request's head; None at the connection's end."""
        lines = []
        while (line := self.reader.readline(256 * 1024)) not in (b"", b"\r\n"):
            lines.append(line)
        if not lines or not line:
            return None
        method, target, version = lines[0].decode("latin-1").split(None, 2)
        headers = []
        for raw in lines[1:]:
            name, _, value = raw.decode("latin-1").partition(":")
            headers.append((name, value.strip()))
        head = b"".join(lines) + line
        return Exchange(self.arrival, method, target, head, headers, version.strip())

    def body(self, exchange: Exchange) -> Iterator[bytes]:
        """Read the body piece by piece, noting each."""
        if "chunked" in (exchange.header("Transfer-Encoding") or ""):
            pieces = self._chunks(exchange)
        else:
            pieces = self._length(int(exchange.header("Content-Length") or 0))
        for piece in pieces:
            exchange.took_in(piece)
            yield piece
        exchange.complete = True

    def drain(self, exchange: Exchange) -> None:
        """Read the body to its end."""
        for _ in self.body(exchange):
            pass

    def _length(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self.reader.read1(min(left, _PIECE))
            if not piece:
                raise ConnectionAbortedError("the body ended early")
            left -= len(piece)
            yield piece

    def _chunks(self, exchange: Exchange) -> Iterator[bytes]:
        while size := int(self.reader.readline().split(b";")[0], 16):
            yield from self._length(size)
            self.reader.readline()
        while (line := self.reader.readline()) not in (b"\r\n", b""):
            exchange.trailers += line


type Site = Callable[[Exchange, Talk], None]
type Http2Site = Callable[[socket.socket, Arrival, "Origin"], None]


class Origin:
    """Every server of the test's internet in one."""

    def __init__(self, internet: Namespace, pki: Pki, site: Site, http2: Http2Site) -> None:
        self.arrivals: list[Arrival] = []
        self.exchanges: list[Exchange] = []
        self.sites: dict[str, Site] = {}
        self.http2_hosts: set[str] = set()
        self._pki = pki
        self._site = site
        self._http2 = http2
        self._gates: dict[str, Gate] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._listeners = [internet.listen("::", port) for port in (*TLS_PORTS, *PLAIN_PORTS)]
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Accept no more."""
        for listener in self._listeners:
            # Closing alone would leave the accepting thread where it is.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def gate(self, name: str) -> Gate:
        """Return the gate of that name."""
        with self._lock:
            return self._gates.setdefault(name, Gate())

    def open_connections(self) -> int:
        """Count the connections that neither side has ended yet."""
        return sum(not arrival.closed for arrival in list(self.arrivals))

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            address, port = connection.getsockname()[:2]
            arrival = Arrival(next(self._numbers), address.removeprefix("::ffff:"), port)
            self.arrivals.append(arrival)
            threading.Thread(target=self._serve, args=(connection, arrival), daemon=True).start()

    def _serve(self, connection: socket.socket, arrival: Arrival) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(180)
        stream = connection
        try:
            arrival.first = connection.recv(64, socket.MSG_PEEK)
            if arrival.port in TLS_PORTS:
                stream = self._secure(connection, arrival)
            if isinstance(stream, ssl.SSLSocket) and stream.selected_alpn_protocol() == "h2":
                self._http2(stream, arrival, self)
            else:
                self._converse(Talk(stream, arrival, self))
        except (OSError, ValueError):
            pass  # the other side went away, or sent what no client of ours would
        finally:
            stream.close()
            connection.close()
            arrival.closed = True

    def _secure(self, connection: socket.socket, arrival: Arrival) -> ssl.SSLSocket:
        def choose(stream: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            arrival.server_name = name
            host = name or _NO_SERVER_NAME
            protocols = ("h2", "http/1.1") if host in self.http2_hosts else ("http/1.1",)
            stream.context = self._pki.context(host, protocols)

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = choose
        stream = context.wrap_socket(connection, server_side=True)
        arrival.secured = True
        return stream

    def _converse(self, talk: Talk) -> None:
        while (exchange := talk.read_head()) is not None:
            self.exchanges.append(exchange)
            host = talk.arrival.server_name or (exchange.header("Host") or "").partition(":")[0]
            site = self.sites.get(host, self._site)
            try:
                site(exchange, talk)
            except OSError:
                exchange.broken = True
                raise
            if talk.over or (exchange.header("Connection") or "").lower() == "close":
                return
