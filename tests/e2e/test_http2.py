"""Each stream of an HTTP/2 tunnel is judged by itself."""

import ssl
from dataclasses import dataclass, field
from typing import Self

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset

from .rig.client import open_tunnel
from .rig.internet import Internet
from .rig.proxy import Proxy


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

    def __init__(self, proxy: Proxy, host: str) -> None:
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

    def ask(self, *headers: tuple[str, str], body: bytes = b"") -> int:
        """Send one request and return its stream."""
        stream = self._h2.get_next_available_stream_id()
        self.replies[stream] = Reply()
        self._h2.send_headers(stream, list(headers), end_stream=not body)
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
        reply = self.replies[stream]
        while not reply.over:
            try:
                data = self._tunnel.stream.recv(64 * 1024)
            except ConnectionError:
                data = b""
            if not data:
                reply.over = reply.reset = True
                break
            for event in self._h2.receive_data(data):
                self._note(event)
            self._flush()
        return reply

    def _note(self, event: object) -> None:
        match event:
            case ResponseReceived():
                headers = {str(name): str(value) for name, value in event.headers or ()}
                self.replies[event.stream_id].headers = headers
            case DataReceived():
                self.replies[event.stream_id].body += event.data or b""
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


@pytest.mark.parametrize("pseudo", WRONG.values(), ids=WRONG.keys())
def test_a_stream_that_is_not_a_plain_request_reaches_nobody(
    proxy: Proxy, internet: Internet, pseudo: list[tuple[str, str]]
) -> None:
    with internet.watch() as seen, Http2Client(proxy, "allowed.test") as client:
        reply = client.reply(client.ask(*pseudo, (":authority", "allowed.test")))

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
        pseudo = ((":method", "POST"), (":scheme", "https"), (":authority", host), (":path", "/x"))
        reply = client.reply(client.ask(*pseudo, ("content-length", length), body=body))

    assert reply.reset or reply.status == 400
    assert "/smuggled" not in seen.targets()
    assert not any(exchange.complete for exchange in seen.exchanges)


def test_an_override_of_what_was_judged_does_not_arrive(proxy: Proxy, internet: Internet) -> None:
    with internet.watch() as seen, Http2Client(proxy, "read-only.test") as client:
        override = ("x-http-method-override", "DELETE")
        reply = client.reply(client.get("read-only.test", "/x", "GET", override))

    assert reply.status in {200, 400, 403}
    assert not any(exchange.header("x-http-method-override") for exchange in seen.exchanges)


def test_every_stream_is_in_the_audit_log(proxy: Proxy) -> None:
    with Http2Client(proxy, "allowed.test") as client:
        client.reply(client.get("allowed.test", "/forbidden/logged"))
        client.reply(client.get("allowed.test", "/logged"))

    assert proxy.outcome("allowed.test:443", "/forbidden/logged").status == 403
    assert proxy.outcome("allowed.test:443", "/logged").status == 200
