"""Plays the clients of a soak that no proxy wishes for: garbage, silence, aborts, resets.

Each knows which rows the audit log must have of it, and none may ever be given what the origin
says. What they do is drawn from a seed, so that a soak can be had again.
"""

import contextlib
import random
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset

from bench.processes import LOOPBACK

DOMAIN = "soak.test"
DENIED = "denied.other.test"
FROM_ORIGIN = b"msg_01"  # is in whatever JSON the origin answers

_TIMEOUT_S = 60.0
_MIB = 1024 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, for no time
_HEAD_END = b"\r\n\r\n"

# Where the client sees the origin's own certificate, or sends only the beginning of TLS.
_UNVERIFIED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_UNVERIFIED.check_hostname = False
_UNVERIFIED.verify_mode = ssl.CERT_NONE


class Ledger:
    """What the clients did, and which rows of the audit log must be there for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.least: Counter[tuple[str, str, bool]] = Counter()
        self.most: Counter[tuple[str, str, bool]] = Counter()
        self.done: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    def expect(
        self, target: str, phase: str, least: int, most: int | None = None, *, allowed: bool
    ) -> None:
        """Expect so many more rows."""
        with self._lock:
            self.least[target, phase, allowed] += least
            self.most[target, phase, allowed] += least if most is None else most

    def count(self, name: str) -> None:
        """Note that a client of this kind has done what it does."""
        with self._lock:
            self.done[name] += 1

    def fail(self, what: str) -> None:
        """Note what went otherwise than it must."""
        with self._lock:
            self.failures[what] += 1


@dataclass(slots=True)
class Scene:
    """The proxy and the origins, as a client finds them."""

    proxy_port: int
    ca: Path
    tls_port: int  # of our own origin
    plain_port: int
    http2_port: int | None  # of an origin that speaks HTTP/2, if there is one
    ledger: Ledger
    context: ssl.SSLContext = field(init=False)
    http2_context: ssl.SSLContext = field(init=False)

    def __post_init__(self) -> None:
        """Make the clients' side of TLS, which trusts the proxy alone."""
        self.context = ssl.create_default_context(cafile=self.ca)
        self.http2_context = ssl.create_default_context(cafile=self.ca)
        self.http2_context.set_alpn_protocols(["h2"])


class Client:
    """One client of a kind, with a connection to the proxy."""

    def __init__(self, scene: Scene, name: str, draw: random.Random) -> None:
        self.scene = scene
        self.host = f"{name}.{DOMAIN}"
        self.draw = draw
        self.socket = socket.create_connection((LOOPBACK, scene.proxy_port), _TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.target = f"{self.host}:{scene.tls_port}"

    def expect(self, phase: str, least: int = 1, most: int | None = None, *, allowed: bool) -> None:
        """Expect rows about this client's target."""
        self.scene.ledger.expect(self.target, phase, least, most, allowed=allowed)

    def connect(self) -> None:
        """Open a tunnel."""
        self.send(connect_head(self.target))
        answer = self.read_head()
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"CONNECT was answered {answer[:60]!r}")
        self.expect("connect", allowed=True)

    def secure(self, context: ssl.SSLContext | None = None, name: str | None = None) -> None:
        """Open a tunnel, and TLS inside."""
        self.connect()
        context = context or self.scene.context
        self.socket = context.wrap_socket(self.socket, server_hostname=name or self.host)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def send_what_goes(self, data: bytes) -> None:
        """Send, though the other side may have hung up already."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def read_head(self) -> bytes:
        """Read to the end of a head, and no further."""
        head = b""
        while not head.endswith(_HEAD_END):
            byte = self.socket.recv(1)
            if not byte:
                raise ConnectionError(f"the connection ended within a head: {head!r}")
            head += byte
        return head

    def read_rest(self) -> bytes:
        """Read until the other side ends the connection, as politely or rudely as it likes."""
        pieces = []
        with contextlib.suppress(OSError):
            while piece := self.socket.recv(65536):
                pieces.append(piece)
        return b"".join(pieces)

    def must_be_refused(self) -> None:
        """Read the answer and see that it is not the origin's."""
        if FROM_ORIGIN in self.read_rest():
            self.scene.ledger.fail(f"{self.host} was given what the origin says")

    def reset(self) -> None:
        """Break the connection off, so that the other side gets a reset and not an end."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        # Not SSLSocket.close, which says no more than this either: there is no close_notify.
        self.socket.close()

    def leave(self) -> None:
        """End the connection one way or the other."""
        if self.draw.random() < 0.5:  # noqa: PLR2004
            self.reset()
        else:
            self.socket.close()

    def request_head(self, method: str, path: str, *fields: str, host: str | None = None) -> bytes:
        """Return the head of a request inside the tunnel."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host or self.target}", *fields, "", ""]
        return "\r\n".join(lines).encode()

    def noise(self, least: int = 1, most: int = 2000) -> bytes:
        """Return random bytes."""
        return self.draw.randbytes(self.draw.randint(least, most))


def connect_head(target: str) -> bytes:
    """Return the head of a CONNECT."""
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()


def client_hello(name: str) -> bytes:
    """Return an ordinary ClientHello."""
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = _UNVERIFIED.wrap_bio(inward, outward, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outward.read()


# --- garbage: not one of these is a request that could be forwarded


def only_noise(client: Client) -> None:
    """Send random bytes to the proxy itself; what it makes of them is not for us to know."""
    client.target = ""
    client.expect("request", 0, 1, allowed=False)
    client.expect("connect", 0, 1, allowed=False)
    client.send_what_goes(client.noise())
    client.leave()


def truncated_connect(client: Client) -> None:
    """Send some of a CONNECT."""
    head = connect_head(client.target)
    client.send(head[: client.draw.randint(1, len(head) - 4)])
    client.leave()


def truncated_request(client: Client) -> None:
    """Send some of a plain request."""
    head = (
        f"GET http://{client.host}:{client.scene.plain_port}/json HTTP/1.1\r\nHost: {client.host}"
    )
    client.send(head[: client.draw.randint(1, len(head))].encode())
    client.leave()


def half_hello(client: Client) -> None:
    """Send some of a ClientHello."""
    client.connect()
    hello = client_hello(client.host)
    client.send(hello[: client.draw.randint(1, len(hello) - 1)])
    client.leave()


def broken_hello(client: Client) -> None:
    """Begin TLS, and go on with random bytes."""
    client.connect()
    client.expect("hello", 0, 1, allowed=False)
    client.send_what_goes(b"\x16\x03\x01" + client.noise(5))
    client.leave()


def broken_handshake(client: Client) -> None:
    """Send a good ClientHello, and random bytes after it."""
    client.connect()
    client.send(client_hello(client.host))
    client.socket.recv(1)
    client.send_what_goes(client.noise(100))
    client.leave()


def wrong_name(client: Client) -> None:
    """Name another server in the ClientHello than in the CONNECT."""
    client.connect()
    client.send(client_hello(f"other.{DOMAIN}"))
    client.expect("hello", allowed=False)
    client.must_be_refused()


def not_tls(client: Client) -> None:
    """Speak plain HTTP in a tunnel that is for TLS."""
    client.connect()
    client.send(client.request_head("GET", "/json"))
    client.expect("hello", allowed=False)
    client.must_be_refused()


def noise_inside(client: Client) -> None:
    """Send random bytes where a request is awaited."""
    client.secure()
    client.expect("request", allowed=False)
    client.send_what_goes(b"\x00" + client.noise() + _HEAD_END)
    client.must_be_refused()


def bad_chunks(client: Client) -> None:
    """Send an upload whose chunks are no chunks."""
    client.secure()
    sizes = [
        b"zz\r\n",
        b"-5\r\nhello\r\n",
        b"5\nhello\n",
        b"fffffffffffffffff\r\n",
        b"5\r\nhelloXX",
    ]
    client.expect("request", allowed=True)
    client.send_what_goes(
        client.request_head("POST", "/json", "Transfer-Encoding: chunked")
        + b"5\r\nfirst\r\n"
        + client.draw.choice(sizes)
        + client.noise()
    )
    client.must_be_refused()


def bad_chunks_plain(client: Client) -> None:
    """Send such an upload over plain HTTP."""
    authority = f"{client.host}:{client.scene.plain_port}"
    client.target = authority
    client.expect("request", allowed=True)
    client.send_what_goes(
        f"POST http://{authority}/json HTTP/1.1\r\nHost: {authority}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\nG\r\n".encode()
        + client.noise()
    )
    client.must_be_refused()


def two_hosts(client: Client) -> None:
    """Send a request with two Host fields."""
    client.secure()
    client.expect("request", allowed=False)
    client.send(client.request_head("GET", "/json", f"Host: other.{DOMAIN}"))
    client.must_be_refused()


def other_host(client: Client) -> None:
    """Send a request for another host than the tunnel's."""
    client.secure()
    client.expect("request", allowed=False)
    head = client.request_head("GET", "/json", "Connection: close", host=f"other.{DOMAIN}")
    client.send(head)
    client.must_be_refused()


def denied_tunnel(client: Client) -> None:
    """Ask for a host that is not allowed."""
    client.target = f"{DENIED}:443"
    client.expect("connect", allowed=False)
    client.send(connect_head(client.target))
    client.must_be_refused()


def gone_at_once(client: Client) -> None:
    """Connect, and be gone before anybody looked."""
    client.reset()


GARBAGE: dict[str, Callable[[Client], None]] = {
    "noise": only_noise,
    "truncated-connect": truncated_connect,
    "truncated-request": truncated_request,
    "half-hello": half_hello,
    "broken-hello": broken_hello,
    "broken-handshake": broken_handshake,
    "wrong-name": wrong_name,
    "not-tls": not_tls,
    "noise-inside": noise_inside,
    "bad-chunks": bad_chunks,
    "bad-chunks-plain": bad_chunks_plain,
    "two-hosts": two_hosts,
    "other-host": other_host,
    "denied": denied_tunnel,
    "gone-at-once": gone_at_once,
}


# --- silence: what only a time limit of the proxy's ends


def says_nothing(client: Client) -> None:
    """Connect, and say nothing."""


def says_half_a_head(client: Client) -> None:
    """Say half of a head."""
    client.send(b"CONNECT silent")


def tunnels_in_silence(client: Client) -> None:
    """Open a tunnel, and say nothing in it."""
    client.connect()


def hellos_in_part(client: Client) -> None:
    """Open a tunnel, and say half of a ClientHello."""
    client.connect()
    client.send(client_hello(client.host)[:100])


def half_a_head_inside(client: Client) -> None:
    """Say half of a head inside TLS."""
    client.secure()
    client.send(b"GET /json HTTP/1.1\r\nHo")


SILENCE: dict[str, Callable[[Client], None]] = {
    "mute": says_nothing,
    "slow-head": says_half_a_head,
    "silent-tunnel": tunnels_in_silence,
    "slow-hello": hellos_in_part,
    "slow-head-inside": half_a_head_inside,
}


# --- aborts: allowed exchanges whose client goes away in the middle


def cut_upload(client: Client) -> None:
    """Leave in the middle of an upload that the origin takes."""
    client.secure()
    client.expect("request", allowed=True)
    length = f"Content-Length: {8 * _MIB}"
    client.send(client.request_head("POST", "/json", length, "Expect: 100-continue"))
    client.read_head()
    client.send(bytes(client.draw.randint(1, _MIB)))
    client.leave()


def cut_chunked_upload(client: Client) -> None:
    """Leave in the middle of a chunk."""
    client.secure()
    client.expect("request", allowed=True)
    fields = "Transfer-Encoding: chunked", "Expect: 100-continue"
    client.send(client.request_head("POST", "/json", *fields))
    client.read_head()
    client.send(b"100000\r\n" + bytes(client.draw.randint(1, _MIB // 2)))
    client.leave()


def stalled_upload(client: Client) -> None:
    """Leave an upload of which the origin reads nothing, when no more of it goes."""
    client.secure()
    client.expect("request", 0, 1, allowed=True)
    client.send(client.request_head("POST", "/stall", f"Content-Length: {64 * _MIB}"))
    client.socket.settimeout(1.0)
    with contextlib.suppress(TimeoutError):
        for _ in range(64):
            client.send(bytes(_MIB))
    client.reset()


def cut_download(client: Client) -> None:
    """Leave in the middle of a download."""
    client.secure()
    client.expect("request", allowed=True)
    client.send(client.request_head("GET", f"/bytes?n={64 * _MIB}"))
    left = client.draw.randint(1, _MIB)
    while left > 0:
        left -= len(client.socket.recv(65536))
    client.leave()


def unread_download(client: Client) -> None:
    """Leave a download of which nothing was read but the head."""
    client.secure()
    client.expect("request", allowed=True)
    client.send(client.request_head("GET", f"/bytes?n={64 * _MIB}"))
    client.read_head()
    time.sleep(client.draw.random())
    client.leave()


def cut_events(client: Client) -> None:
    """Leave in the middle of an event stream."""
    client.secure()
    client.expect("request", allowed=True)
    client.send(client.request_head("GET", "/events?n=1000&rate=20"))
    client.read_head()
    time.sleep(client.draw.random() / 4)
    client.leave()


def cut_answer(client: Client) -> None:
    """Leave after a request, before its answer.

    One that merely stops sending may still wait for the answer (RFC 9112 section 9.6), so it is
    the answer by which the proxy learns that it has gone.
    """
    client.secure()
    client.expect("request", 0, 1, allowed=True)
    client.send(client.request_head("GET", "/late?s=2"))
    client.leave()


def cut_pipeline(client: Client) -> None:
    """Leave with requests under way."""
    client.secure()
    count = client.draw.randint(2, 20)
    client.expect("request", 0, count, allowed=True)
    client.send(client.request_head("GET", "/json") * count)
    client.leave()


def cut_passthrough(client: Client) -> None:
    """Leave in the middle of a download through a tunnel that is not opened."""
    client.connect()
    client.socket = _UNVERIFIED.wrap_socket(client.socket, server_hostname=client.host)
    client.send(client.request_head("GET", f"/bytes?n={64 * _MIB}"))
    left = client.draw.randint(1, _MIB)
    while left > 0:
        left -= len(client.socket.recv(65536))
    client.leave()


def stalled_passthrough(client: Client) -> None:
    """Leave an upload through such a tunnel when no more of it goes."""
    client.connect()
    client.socket = _UNVERIFIED.wrap_socket(client.socket, server_hostname=client.host)
    client.send(client.request_head("POST", "/stall", f"Content-Length: {64 * _MIB}"))
    client.socket.settimeout(1.0)
    with contextlib.suppress(TimeoutError):
        for _ in range(64):
            client.send(bytes(_MIB))
    client.reset()


PASSTHROUGH: dict[str, Callable[[Client], None]] = {
    "cut-passthrough": cut_passthrough,
    "stalled-passthrough": stalled_passthrough,
}

ABORTS: dict[str, Callable[[Client], None]] = {
    "cut-upload": cut_upload,
    "cut-chunked-upload": cut_chunked_upload,
    "stalled-upload": stalled_upload,
    "cut-download": cut_download,
    "unread-download": unread_download,
    "cut-events": cut_events,
    "cut-answer": cut_answer,
    "cut-pipeline": cut_pipeline,
    **PASSTHROUGH,
}


# --- HTTP/2


class Http2:
    """The client's side of one HTTP/2 connection inside a tunnel."""

    def __init__(self, client: Client) -> None:
        self.client = client
        port = client.scene.http2_port
        if port is not None and client.draw.random() < 0.5:  # noqa: PLR2004
            client.target = f"{client.host}:{port}"
        client.secure(client.scene.http2_context)
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.answered: set[int] = set()
        self.ended: set[int] = set()
        self.flush()

    def flush(self) -> None:
        """Send what is to be sent."""
        self.client.send(self.h2.data_to_send())

    def ask(self, method: str, path: str, *, end: bool = True, host: str | None = None) -> int:
        """Open a stream."""
        stream = self.h2.get_next_available_stream_id()
        authority = host or self.client.target
        fields = [(":method", method), (":scheme", "https"), (":authority", authority)]
        self.h2.send_headers(stream, [*fields, (":path", path)], end_stream=end)
        self.flush()
        return stream

    def cancel(self, stream: int) -> None:
        """Reset a stream, unless it is over."""
        if stream not in self.ended:
            self.h2.reset_stream(stream, ErrorCodes.CANCEL)

    def read_until_answered(self, streams: set[int], *, give_credit: bool = True) -> None:
        """Read until each of these has a head, or is over."""
        while not streams <= self.answered | self.ended:
            data = self.client.socket.recv(65536)
            if not data:
                raise ConnectionError("the HTTP/2 connection was ended")
            for event in self.h2.receive_data(data):
                match event:
                    case ResponseReceived():
                        self.answered.add(event.stream_id or 0)
                    case DataReceived() if give_credit:
                        length = event.flow_controlled_length or 0
                        self.h2.acknowledge_received_data(length, event.stream_id or 0)
                    case StreamEnded() | StreamReset():
                        self.ended.add(event.stream_id or 0)
            self.flush()


def reset_answers(client: Client) -> None:
    """Reset streams in the middle of their answers, some of them not read."""
    http2 = Http2(client)
    client.expect("request", 9, allowed=True)
    paths = "/events?n=1000&rate=20", f"/bytes?n={8 * _MIB}", "/json"
    streams = [http2.ask("GET", path) for path in paths * 3]
    http2.read_until_answered(set(streams), give_credit=False)
    for stream in client.draw.sample(streams, 6):
        http2.cancel(stream)
    http2.flush()
    client.leave()


def reset_uploads(client: Client) -> None:
    """Reset streams in the middle of their requests; then one must still be answered."""
    http2 = Http2(client)
    client.expect("request", 6, allowed=True)
    streams = [http2.ask("POST", "/json", end=False) for _ in range(5)]
    for stream in streams:
        http2.h2.send_data(stream, bytes(client.draw.randint(1, 8000)))
    http2.flush()
    for stream in streams:
        http2.cancel(stream)
    http2.read_until_answered({http2.ask("GET", "/json")})
    client.leave()


def reset_at_once(client: Client) -> None:
    """Open and reset many streams without a pause (as in CVE-2023-44487)."""
    http2 = Http2(client)
    count = 100
    client.expect("request", 0, count, allowed=True)
    for _ in range(count):
        http2.h2.reset_stream(http2.ask("GET", "/json"), ErrorCodes.CANCEL)
    with contextlib.suppress(OSError):
        http2.flush()
        http2.read_until_answered({http2.ask("GET", "/json")})
        client.expect("request", allowed=True)
    client.leave()


def reset_denied(client: Client) -> None:
    """Reset uploads that were denied."""
    http2 = Http2(client)
    client.expect("request", 5, allowed=False)
    streams = [http2.ask("POST", "/json", end=False, host=f"other.{DOMAIN}") for _ in range(5)]
    http2.read_until_answered(set(streams))
    for stream in streams[:3]:
        http2.cancel(stream)
    http2.flush()
    client.leave()


HTTP2: dict[str, Callable[[Client], None]] = {
    "reset-answers": reset_answers,
    "reset-uploads": reset_uploads,
    "reset-at-once": reset_at_once,
    "reset-denied": reset_denied,
}


def kinds() -> Iterator[str]:
    """Return the name of every kind, which is the first label of the host that it asks for."""
    yield from (*GARBAGE, *SILENCE, *ABORTS, *HTTP2)
