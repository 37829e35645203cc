"""The laws of HTTP/2 bodies: passed on as they come, counted, and their end recorded once."""

from collections.abc import Callable

import pytest
from mitmproxy.connection import Client, Server
from mitmproxy.http import Headers, HTTPFlow, Request, Response

from claude_proxy.proxy.gate import Attempt, Gate
from claude_proxy.proxy.hooks.http2_streams import Http2StreamHooks
from claude_proxy.proxy.layers.http2 import ATTEMPT
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import ORIGIN, Ledger, policy_of


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def gate(ledger: Ledger) -> Gate:
    return Gate(policy_of("allow: [example.com]"), ledger.events.append)


@pytest.fixture
def passage(gate: Gate) -> Attempt:
    return gate.connect(ORIGIN, Authority.of("example.com", 443))


@pytest.fixture
def flow(passage: Attempt) -> HTTPFlow:
    client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
    flow = HTTPFlow(client, Server(address=("example.com", 443), alpn=b"h2"))
    flow.request = Request.make("POST", "https://example.com/")
    flow.response = Response.make(200, b"", {"alt-svc": "h3", "x": "y"})
    flow.metadata[ATTEMPT] = passage
    return flow


def pass_through(stream: object, data: bytes) -> object:
    assert callable(stream)
    return stream(data)


def test_bodies_pass_as_they_are_and_are_counted(
    gate: Gate, flow: HTTPFlow, passage: Attempt
) -> None:
    streams = Http2StreamHooks(gate)
    streams.requestheaders(flow)
    streams.responseheaders(flow)
    assert flow.response is not None

    up = pass_through(flow.request.stream, b"abc")
    down = pass_through(flow.response.stream, b"de")

    assert (up, down) == (b"abc", b"de")
    assert (passage.bytes_up, passage.bytes_down) == (3, 2)


def test_an_answer_names_no_other_way_to_its_origin(
    gate: Gate, flow: HTTPFlow, passage: Attempt
) -> None:
    Http2StreamHooks(gate).responseheaders(flow)

    assert flow.response is not None
    assert "alt-svc" not in flow.response.headers
    assert flow.response.headers["x"] == "y"
    assert passage.status == 200
    assert passage.first_byte is not None


def test_the_end_of_an_exchange_is_recorded_once(
    gate: Gate, flow: HTTPFlow, ledger: Ledger
) -> None:
    streams = Http2StreamHooks(gate)

    streams.response(flow)
    streams.error(flow)

    assert [outcome.error for outcome in ledger.outcomes] == [None]


def test_an_exchange_that_broke_off_is_recorded_as_such(
    gate: Gate, flow: HTTPFlow, ledger: Ledger
) -> None:
    Http2StreamHooks(gate).error(flow)

    assert ledger.last.error == "stream-broken-off"


def test_trailers_hold_nothing_that_belongs_in_the_head(gate: Gate, flow: HTTPFlow) -> None:
    fields = (b"x-sum", b"authorization", b"host", b"X-HTTP-Method-Override", b"content_length")
    flow.request.trailers = Headers([(name, b"1") for name in fields])

    Http2StreamHooks(gate).request(flow)

    assert flow.request.trailers is not None
    assert flow.request.trailers.fields == ((b"x-sum", b"1"),)


def test_an_upstream_of_http_1_gets_no_trailers(gate: Gate, flow: HTTPFlow) -> None:
    flow.server_conn.alpn = None
    flow.request.trailers = Headers([(b"x-sum", b"1")])

    Http2StreamHooks(gate).request(flow)

    assert flow.request.trailers is None


def test_a_request_without_trailers_stays_so(gate: Gate, flow: HTTPFlow) -> None:
    Http2StreamHooks(gate).request(flow)

    assert flow.request.trailers is None


Hook = Callable[[Http2StreamHooks, HTTPFlow], None]


@pytest.mark.parametrize(
    "hook", [Http2StreamHooks.responseheaders, Http2StreamHooks.response, Http2StreamHooks.error]
)
def test_what_was_never_allowed_has_no_outcome(
    gate: Gate, flow: HTTPFlow, ledger: Ledger, hook: Hook
) -> None:
    flow.metadata.clear()

    hook(Http2StreamHooks(gate), flow)

    assert ledger.outcomes == []


def test_without_a_passage_bodies_still_pass(gate: Gate, flow: HTTPFlow) -> None:
    Http2StreamHooks(gate).requestheaders(flow)
    flow.metadata.clear()

    assert pass_through(flow.request.stream, b"abc") == b"abc"


def test_without_an_answer_there_is_nothing_to_do(gate: Gate, flow: HTTPFlow) -> None:
    flow.response = None

    Http2StreamHooks(gate).responseheaders(flow)
