"""Each stream of an HTTP/2 tunnel is judged by itself."""

import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset

from tests.support.waiting import settled, until

from .rig.client import open_tunnel
from .rig.internet import Internet
from .rig.proxy import Proxy
from .rig.spellings import FORBIDDEN_SPELLINGS, OVERRIDES, PATHS

IN_FLIGHT = 48 * 1024 * 1024  # what may lie in buffers on the way


@dataclass
class Reply:
    """What came back on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    over: bool = False
    reset: bool = False

    @property
    def status(self) -> int:
        """The status, or 0 if the stream was reset before one came."""
        return int(self.headers.get(":status", "0"))


class Http2Client:
    """A client that sends what it is told, right or wrong."""

    def __init__(self, proxy: Proxy, host: str, *, hungry: bool = True) -> None:
        self._hungry = hungry  # whether it makes room for more when data has come
        context = proxy.tls()
        context.set_alpn_protocols(["h2"])
        self._tunnel = open_tunnel(proxy.connect(), f"{host}:443", context)
        assert isinstance(self._tunnel.stream, ssl.SSLSocket)
        assert self._tunnel.stream.selected_alpn_protocol() == "h2"
        config = H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = H2Connection(config)
        self._h2.initiate_connection()
        self._flush()
        self.replies: dict[int, Reply] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tunnel.close()

    def ask(self, *headers: tuple[str, str], body: bytes = b"", more: bool = False) -> int:
        """Send one request and return its stream; with `more` the body is sent later."""
        stream = self._h2.get_next_available_stream_id()
        self.replies[stream] = Reply()
        self._h2.send_headers(stream, list(headers), end_stream=not body and not more)
        if body:
            self._h2.send_data(stream, body, end_stream=True)
        self._flush()
        return stream

    def get(self, authority: str, path: str, method: str = "GET", *more: tuple[str, str]) -> int:
        """Send a request with these pseudo-headers."""
        return self.ask(
            (":method", method),
            (":scheme", "https"),
            (":authority", authority),
            (":path", path),
            *more,
        )

    def reply(self, stream: int) -> Reply:
        """Read until that stream is over."""
        return self.read(stream, lambda reply: reply.over)

    def read(self, stream: int, enough: Callable[[Reply], bool]) -> Reply:
        """Read until enough of that stream has come."""
        reply = self.replies[stream]
        while not enough(reply) and not reply.over:
            self._read_some()
        return reply

    def send_body(self, stream: int, size: int, *, patience_s: float) -> int:
        """Send a body as far as the windows let it go; return how much went."""
        sent = 0
        self._tunnel.stream.settimeout(patience_s)
        with contextlib.suppress(TimeoutError, ssl.SSLWantWriteError):
            while sent < size and not self.replies[stream].over:
                window = self._h2.local_flow_control_window(stream)
                piece = min(window, self._h2.max_outbound_frame_size, size - sent)
                if piece == 0:
                    self._read_some()
                    continue
                self._h2.send_data(stream, bytes(piece), end_stream=sent + piece == size)
                self._flush()
                sent += piece
        self._tunnel.stream.settimeout(60)
        return sent

    def reset(self, stream: int) -> None:
        """Abort one stream."""
        self._h2.reset_stream(stream)
        self._flush()

    def _read_some(self) -> None:
        try:
            data = self._tunnel.stream.recv(64 * 1024)
        except ConnectionError:
            data = b""
        if not data:
            for reply in self.replies.values():
                reply.reset = reply.reset or not reply.over
                reply.over = True
            return
        for event in self._h2.receive_data(data):
            self._note(event)
        self._flush()

    def _note(self, event: object) -> None:
        match event:
            case ResponseReceived():
                headers = {str(name): str(value) for name, value in event.headers or ()}
                self.replies[event.stream_id].headers = headers
            case DataReceived():
                self.replies[event.stream_id].body += event.data or b""
                if self._hungry:
                    self._h2.acknowledge_received_data(
                        event.flow_controlled_length or 0, event.stream_id
                    )
            case StreamEnded():
                self.replies[event.stream_id].over = True
            case StreamReset():
                self.replies[event.stream_id].over = True
                self.replies[event.stream_id].reset = True
            case ConnectionTerminated():
                for reply in self.replies.values():
                    reply.reset = reply.reset or not reply.over
                    reply.over = True
            case _:
                pass

    def _flush(self) -> None:
        self._tunnel.stream.sendall(self._h2.data_to_send())


def pseudo(host: str, method: str, path: str) -> tuple[tuple[str, str], ...]:
    """Return the pseudo-headers of an ordinary request."""
    return ((":method", method), (":scheme", "https"), (":authority", host), (":path", path))


HOSTS = pytest.mark.parametrize("host", ["h2.test", "allowed.test"])


@HOSTS
def test_streams_are_answered(proxy: Proxy, internet: Internet, host: str) -> None:
    with internet.watch() as seen, Http2Client(proxy, host) as client:
        streams = [client.get(host, f"/{number}") for number in range(5)]
        statuses = [client.reply(stream).status for stream in streams]

    assert statuses == [200] * 5
    assert sorted(seen.targets()) == [f"/{number}" for number in range(5)]


@HOSTS
@pytest.mark.parametrize(
    "authority", ["denied.test", "other.test", "", "allowed.test:8443", "h2.test@denied.test"]
)
def test_a_stream_to_another_authority_reaches_nobody(
    proxy: Proxy, internet: Internet, host: str, authority: str
) -> None:
    with internet.watch() as seen, Http2Client(proxy, host) as client:
        reply = client.reply(client.get(authority, "/stray"))

    assert reply.reset or 400 <= reply.status < 500
    assert seen.exchanges == []


@HOSTS
def test_a_host_field_beside_the_authority_cannot_contradict_it(
    proxy: Proxy, internet: Internet, host: str
) -> None:
    with internet.watch() as seen, Http2Client(proxy, host) as client:
        reply = client.reply(client.get(host, "/stray", "GET", ("host", "denied.test")))

    named = {exchange.header("host") for exchange in seen.exchanges}
    assert named <= {host, None}
    assert reply.reset or reply.status in {200, 400, 403}


def test_a_denied_stream_leaves_the_others_alone(proxy: Proxy, internet: Internet) -> None:
    with internet.watch() as seen, Http2Client(proxy, "allowed.test") as client:
        first = client.get("allowed.test", "/first")
        denied = client.get("allowed.test", "/forbidden/x")
        third = client.get("allowed.test", "/third")
        statuses = [client.reply(stream).status for stream in (first, denied, third)]

    assert statuses == [200, 403, 200]
    assert sorted(seen.targets()) == ["/first", "/third"]
    assert client.replies[denied].headers["x-claude-proxy-reason"] == "deny-rule"


WRONG = {
    "another scheme": [(":method", "GET"), (":scheme", "http"), (":path", "/x")],
    "absolute path": [(":method", "GET"), (":scheme", "https"), (":path", "https://denied.test/x")],
    "connect": [(":method", "CONNECT")],
    "trace": [(":method", "TRACE"), (":scheme", "https"), (":path", "/x")],
    "a space in the path": [(":method", "GET"), (":scheme", "https"), (":path", "/x y")],
    "a line in the path": [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/x HTTP/1.1\r\nX: y"),
    ],
    "a line in the method": [
        (":method", "GET /y HTTP/1.1\r\n"),
        (":scheme", "https"),
        (":path", "/x"),
    ],
    "an empty path": [(":method", "GET"), (":scheme", "https"), (":path", "")],
    "a relative path": [(":method", "GET"), (":scheme", "https"), (":path", "x")],
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_stream_that_is_not_a_plain_request_reaches_nobody(
    proxy: Proxy, internet: Internet, wrong: list[tuple[str, str]]
) -> None:
    with internet.watch() as seen, Http2Client(proxy, "allowed.test") as client:
        reply = client.reply(client.ask(*wrong, (":authority", "allowed.test")))

    assert reply.reset or 400 <= reply.status < 500
    assert seen.exchanges == []


FIELDS = {
    "a line in a value": ("x-a", "b\r\nx-injected: yes"),
    "a line in a name": ("x-a\r\nx-injected", "yes"),
    "a NUL in a value": ("x-a", "b\x00c"),
    "chunked": ("transfer-encoding", "chunked"),
    "connection": ("connection", "x-kept"),
    "upgrade": ("upgrade", "h2c"),
    "two lengths": ("content-length", "5, 5"),
    "upper case": ("X-Upper", "x"),
}


@pytest.mark.parametrize("extra", FIELDS.values(), ids=FIELDS.keys())
def test_a_field_that_http2_forbids_splits_nothing(
    proxy: Proxy, internet: Internet, extra: tuple[str, str]
) -> None:
    with internet.watch() as seen, Http2Client(proxy, "allowed.test") as client:
        reply = client.reply(client.get("allowed.test", "/x", "GET", extra))

    assert reply.reset or reply.status in {200, 400, 403}
    assert len(seen.exchanges) <= 1
    for exchange in seen.exchanges:
        assert exchange.header("x-injected") is None
        assert exchange.header("transfer-encoding") is None
        assert exchange.header("upgrade") is None


LENGTHS = [
    ("5", b""),
    ("0", b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("3", b"12345"),
    ("8", b"123"),
]


@HOSTS
@pytest.mark.parametrize(("length", "body"), LENGTHS)
def test_a_length_that_is_not_the_bodys_splits_nothing(
    proxy: Proxy, internet: Internet, host: str, length: str, body: bytes
) -> None:
    with internet.watch() as seen, Http2Client(proxy, host) as client:
        request = pseudo(host, "POST", "/x")
        reply = client.reply(client.ask(*request, ("content-length", length), body=body))

    assert reply.reset or reply.status == 400
    assert "/smuggled" not in seen.targets()
    assert not any(exchange.complete for exchange in seen.exchanges)


def test_no_override_of_what_was_judged_arrives(proxy: Proxy, internet: Internet) -> None:
    fields = [field.lower().split(": ") for field in OVERRIDES]

    with internet.watch() as seen, Http2Client(proxy, "read-only.test") as client:
        for name, value in fields:
            reply = client.reply(client.get("read-only.test", "/x", "GET", (name, value)))
            assert reply.status in {200, 400, 403}

    for exchange in seen.exchanges:
        assert not [name for name, _ in fields if exchange.header(name)]


def test_a_path_that_is_not_plainly_allowed_is_denied(proxy: Proxy, internet: Internet) -> None:
    for path in PATHS:
        with internet.watch() as seen, Http2Client(proxy, "paths.test") as client:
            reply = client.reply(client.get("paths.test", path))

        assert reply.reset or reply.status in {200, 400, 403}, path
        assert seen.targets() == ([path] if reply.status == 200 else [])
        if reply.status == 200:
            assert path.startswith("/ok/%")
            assert "%2e%2e" not in path.lower().replace("%252e", "")


def test_a_denied_path_is_denied_in_every_spelling(proxy: Proxy, internet: Internet) -> None:
    for path in FORBIDDEN_SPELLINGS:
        with internet.watch() as seen, Http2Client(proxy, "allowed.test") as client:
            reply = client.reply(client.get("allowed.test", path))

        assert reply.reset or reply.status in {400, 403}, path
        assert seen.exchanges == []


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "OPTIONS", "get", "HEAD2"])
def test_a_method_that_is_not_listed_is_denied(
    proxy: Proxy, internet: Internet, method: str
) -> None:
    with internet.watch() as seen, Http2Client(proxy, "read-only.test") as client:
        reply = client.reply(client.get("read-only.test", "/x", method))

    assert reply.status in {400, 403}
    assert seen.exchanges == []


def test_a_web_socket_over_http2_is_refused(proxy: Proxy, internet: Internet) -> None:
    request = (*pseudo("echoing.test", "CONNECT", "/web-socket"), (":protocol", "websocket"))

    with internet.watch() as seen, Http2Client(proxy, "echoing.test") as client:
        reply = client.reply(client.ask(*request, more=True))

    assert reply.reset or 400 <= reply.status < 500
    assert seen.exchanges == []


def test_a_denial_does_not_wait_for_the_body(proxy: Proxy, internet: Internet) -> None:
    with internet.watch() as seen, Http2Client(proxy, "read-only.test") as client:
        reply = client.reply(client.ask(*pseudo("read-only.test", "POST", "/x"), more=True))

    assert (reply.status, reply.headers["x-claude-proxy-reason"]) == (403, "method-not-allowed")
    assert seen.exchanges == []


def test_cookies_that_came_apart_go_on_as_one(proxy: Proxy, internet: Internet) -> None:
    cookies = (("cookie", "a=1"), ("cookie", "b=2"))

    with internet.watch() as seen, Http2Client(proxy, "allowed.test") as client:
        client.reply(client.get("allowed.test", "/x", "GET", *cookies))

    sent = [value for name, value in seen.exchanges[0].headers if name.lower() == "cookie"]
    assert sent == ["a=1; b=2"]


def test_each_event_arrives_before_the_next_is_sent(proxy: Proxy, internet: Internet) -> None:
    gate = internet.origin.gate("h2-events")

    with Http2Client(proxy, "origin.test") as client:
        stream = client.get("origin.test", "/events/h2-events/4")
        for number in range(4):
            gate.open()
            event = b"data: %d\n\n" % number
            client.read(stream, lambda reply, event=event: reply.body.endswith(event))  # type: ignore[misc]
        reply = client.reply(stream)

    assert not reply.reset
    assert reply.body.count(b"data:") == 4


def test_offers_of_other_ways_are_stripped(proxy: Proxy) -> None:
    with Http2Client(proxy, "origin.test") as client:
        reply = client.reply(client.get("origin.test", "/alternative"))

    assert reply.headers["x-kept"] == "yes"
    assert "alt-svc" not in reply.headers


def test_a_client_that_takes_no_more_stops_the_origin(proxy: Proxy, internet: Internet) -> None:
    before = proxy.memory_kib()

    with Http2Client(proxy, "origin.test", hungry=False) as client:
        stream = client.get("origin.test", f"/bytes/{256 * 1024 * 1024}")
        client.read(stream, lambda reply: len(reply.body) > 1000)
        exchange = internet.origin.exchanges[-1]
        sent = settled(lambda: exchange.sent_bytes)
        grown = proxy.memory_kib() - before

    assert sent < IN_FLIGHT
    assert grown * 1024 < IN_FLIGHT
    until(lambda: exchange.arrival.closed, "the end of the upstream connection")


def test_an_origin_that_takes_no_more_stops_the_client(proxy: Proxy, internet: Internet) -> None:
    before = proxy.memory_kib()
    gate = internet.origin.gate("h2-stuck")
    size = 128 * 1024 * 1024

    with Http2Client(proxy, "origin.test") as client:
        length = ("content-length", str(size))
        path = "/unread/h2-stuck"
        stream = client.ask(*pseudo("origin.test", "POST", path), length, more=True)
        assert gate.reached.wait(60)
        sent = client.send_body(stream, size, patience_s=1)
        grown = proxy.memory_kib() - before
    gate.open()

    assert sent < IN_FLIGHT
    assert grown * 1024 < IN_FLIGHT


def test_an_aborted_stream_leaves_no_upstream_request(proxy: Proxy, internet: Internet) -> None:
    with Http2Client(proxy, "origin.test") as client:
        stream = client.get("origin.test", "/ticking")
        client.read(stream, lambda reply: bool(reply.body))
        exchange = internet.origin.exchanges[-1]
        client.reset(stream)
        until(lambda: exchange.arrival.closed, "the end of the upstream connection")
        assert client.reply(client.get("origin.test", "/next")).status == 200


def test_a_huge_head_is_refused(proxy: Proxy, internet: Internet) -> None:
    fields = [(f"x-{number}", "y" * 1000) for number in range(200)]

    with internet.watch() as seen, Http2Client(proxy, "origin.test") as client:
        reply = client.reply(client.get("origin.test", "/x", "GET", *fields))

    assert reply.reset or 400 <= reply.status < 500
    assert seen.exchanges == []


def test_every_stream_is_in_the_audit_log(proxy: Proxy) -> None:
    with Http2Client(proxy, "allowed.test") as client:
        client.reply(client.get("allowed.test", "/forbidden/logged"))
        client.reply(client.get("allowed.test", "/logged"))

    assert proxy.outcome("allowed.test:443", "/forbidden/logged").status == 403
    assert proxy.outcome("allowed.test:443", "/logged").status == 200
