"""The laws of a client's upstream connections: shared, bounded, and none for what was given up."""

import pytest

from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.layers.http2_upstreams import MOST_CONNECTIONS
from claude_proxy.proxy.layers.session import Waiting
from tests.proxy.layers.http2_peers import Http2Client, Http2Origin
from tests.proxy.layers.http2_world import Http2World
from tests.proxy.layers.stage import Ledger, Stage
from tests.proxy.layers.tls_peers import TlsOrigin

EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def dialling(http2_world: Http2World) -> Stage:
    """A stage on which no dial is answered."""
    return http2_world.play(connects=False)


def test_streams_wait_for_one_dial_whatever_the_origin_speaks(dialling: Stage) -> None:
    client = Http2Client(dialling)
    for _ in range(50):
        client.get()

    assert len(dialling.upstreams) == 1
    assert dialling.session.waiting is Waiting.UPSTREAM


def test_streams_that_waited_share_a_connection_of_http_2(
    dialling: Stage, http2_world: Http2World
) -> None:
    client = Http2Client(dialling)
    asked = [client.get() for _ in range(50)]
    dialling.reached()
    origin = Http2Origin(http2_world.serve(dialling, "example.com", "h2"), client)
    for number in list(origin.messages):
        origin.answer(number)

    assert len(origin.messages) == 50
    assert all(client.messages[number].over for number in asked)
    assert len(dialling.upstreams) == 1


def test_connections_of_http_1_are_bounded_and_the_rest_waits(http2_world: Http2World) -> None:
    stage = http2_world.play()
    client = Http2Client(stage)
    asked = [client.get(path=f"/{number}") for number in range(60)]
    origins: list[TlsOrigin] = []
    served = 0
    while served < len(asked):
        if len(origins) < len(stage.upstreams):
            origins.append(http2_world.serve(stage, "example.com", "http/1.1"))
        for origin in origins:
            if not origin.peer.closed and origin.gets():
                client.pump(origin.answers(EMPTY))
                served += 1

    assert len(stage.upstreams) <= MOST_CONNECTIONS
    assert [client.messages[number].status for number in asked] == [200] * 60
    assert sum(not upstream.closed for upstream in stage.upstreams) <= 4


def test_an_origin_that_allows_no_more_connections_serves_on_those_it_has(
    http2_world: Http2World,
) -> None:
    stage = http2_world.play()
    client = Http2Client(stage)
    first = client.get(path="/1")
    origin = http2_world.serve(stage, "example.com", "http/1.1")
    stage.connects = False
    second = client.get(path="/2")
    client.pump(stage.reached(DialError(Failure.REFUSED, "it refuses")))
    origin.gets()
    client.pump(origin.answers(EMPTY))
    origin.gets()
    client.pump(origin.answers(EMPTY))

    assert client.messages[first].status == client.messages[second].status == 200


def test_a_handshake_that_does_not_end_is_a_timeout(
    http2_world: Http2World, ledger: Ledger
) -> None:
    stage = http2_world.play()
    client = Http2Client(stage)
    asked = client.get()
    for _ in range(10):
        client.pump(stage.passes_time())

    assert client.messages[asked].reason == "upstream-timeout"
    assert stage.upstream.closed
    assert ledger.last.status == 504


def test_the_streams_of_a_failed_dial_all_learn_why(dialling: Stage) -> None:
    client = Http2Client(dialling)
    asked = [client.get() for _ in range(3)]

    client.pump(dialling.reached(DialError(Failure.REFUSED, "it refuses")))

    assert [client.messages[number].reason for number in asked] == ["connect-refused"] * 3
