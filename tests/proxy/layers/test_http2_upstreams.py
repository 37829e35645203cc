"""The laws of a client's upstream connections: shared, bounded, and none for what was given up."""

import pytest

from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.layers.http2_upstreams import MOST_CONNECTIONS
from claude_proxy.proxy.layers.session import Waiting
from claude_proxy.proxy.layers.upstream import UpstreamConnection
from claude_proxy.proxy.warm_keys import Route
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.http2_peers import Http2Client, Http2Origin, pseudo
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


# --- one that was open before there was a request for it


class Ready:
    """Has the first connection of a client count as one that was kept ready."""

    def __init__(self, stage: Stage) -> None:
        self.asked: list[Route] = []
        self._made: list[UpstreamConnection] = []
        self._stage = stage
        stage.session.take_warm = self._take

    def _take(self, route: Route, attempt: Attempt) -> UpstreamConnection:
        self.asked.append(route)
        tls = self._stage.session.tls_for(attempt)
        made = UpstreamConnection(route.target, tls=tls, alpn=route.alpn)
        self._made.append(made)
        return made

    def serve(self, world: Http2World, protocol: str) -> TlsOrigin:
        """Shake hands as its origin."""
        self._made[0].is_warm = True
        return world.serve(self._stage, "example.com", protocol)


@pytest.fixture
def stage(http2_world: Http2World) -> Stage:
    return http2_world.play()


def body_of(sent: bytes) -> bytes:
    return sent.partition(b"\r\n\r\n")[2]


def test_it_is_asked_for_once_and_by_what_is_offered(stage: Stage, http2_world: Http2World) -> None:
    ready, client = Ready(stage), Http2Client(stage)
    client.get()
    ready.serve(http2_world, "http/1.1").gets()
    client.get(path="/2")

    assert [route.alpn for route in ready.asked] == [(b"h2", b"http/1.1")]
    assert len(stage.upstreams) == 2


@pytest.mark.parametrize("untouched", [False, True])
def test_a_post_is_sent_again_only_if_nothing_of_it_arrived(
    stage: Stage, http2_world: Http2World, ledger: Ledger, *, untouched: bool
) -> None:
    ready, client = Ready(stage), Http2Client(stage)
    asked = client.ask(*pseudo("POST"), ("content-length", "10"), body=b"hello", end=False)
    dead = ready.serve(http2_world, "http/1.1")
    first = dead.gets()
    dead.peer.connection.is_untouched = untouched  # type: ignore[attr-defined]
    client.pump(stage.upstream_ends(dead.peer))
    assert body_of(first) == b"hello"
    if not untouched:
        assert client.messages[asked].status == 502
        assert len(stage.upstreams) == 1
        return
    fresh = http2_world.serve(stage, "example.com", "http/1.1")
    client.sends(asked, b"there", end=True)

    assert fresh.gets() == first + b"there"
    client.pump(fresh.answers(EMPTY))
    assert client.messages[asked].status == 200
    assert ledger.last.bytes_up == 10


def test_the_clients_window_grows_once_by_what_is_sent_twice(
    stage: Stage, http2_world: Http2World
) -> None:
    ready, client = Ready(stage), Http2Client(stage)
    room = client.h2.outbound_flow_control_window
    body = bytes(40_000)
    asked = client.ask(*pseudo("POST"), body=body, end=True)
    dead = ready.serve(http2_world, "h2")
    dead.gets()
    dead.peer.connection.is_untouched = True  # type: ignore[attr-defined]
    client.pump(stage.upstream_ends(dead.peer))
    origin = Http2Origin(http2_world.serve(stage, "example.com", "h2"), client)
    origin.answer(1)

    assert origin.messages[1].body == body
    assert client.messages[asked].status == 200
    assert client.h2.outbound_flow_control_window <= room


def test_a_body_that_is_too_long_to_be_kept_is_not_sent_again(
    stage: Stage, http2_world: Http2World
) -> None:
    ready, client = Ready(stage), Http2Client(stage)
    asked = client.ask(*pseudo("POST"), end=False)
    dead = ready.serve(http2_world, "http/1.1")
    for _ in range(6):
        client.sends(asked, bytes(16_000))
        dead.gets()
    dead.peer.connection.is_untouched = True  # type: ignore[attr-defined]
    client.pump(stage.upstream_ends(dead.peer))

    assert client.messages[asked].status == 502
    assert len(stage.upstreams) == 1


def routes_kept(stage: Stage) -> list[Route]:
    """Return where connections are kept ready to, from now on."""
    kept: list[Route] = []
    stage.session.keep_warm = lambda route, _attempt: kept.append(route)
    return kept


def test_after_the_first_answer_of_http_1_another_is_kept(
    stage: Stage, http2_world: Http2World
) -> None:
    kept, client = routes_kept(stage), Http2Client(stage)
    client.get()
    origin = http2_world.serve(stage, "example.com", "http/1.1")
    for _ in range(2):
        origin.gets()
        assert len(kept) <= 1
        client.pump(origin.answers(EMPTY))
        client.get()

    assert [route.target for route in kept] == [Authority.of("example.com", 443)]


def test_after_the_first_answer_of_http_2_another_is_kept(
    stage: Stage, http2_world: Http2World
) -> None:
    kept, client = routes_kept(stage), Http2Client(stage)
    for _ in range(2):
        client.get()
    origin = Http2Origin(http2_world.serve(stage, "example.com", "h2"), client)
    assert kept == []
    origin.answer(1)
    origin.answer(3)

    assert [route.alpn for route in kept] == [(b"h2", b"http/1.1")]
