"""The laws of an origin of HTTP/2: all streams on one connection, and its faults kept apart."""

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from tests.proxy.layers.http2_peers import Http2Client, Http2Origin, pseudo
from tests.proxy.layers.http2_world import Http2World
from tests.proxy.layers.stage import Ledger, Stage


@pytest.fixture
def stage(http2_world: Http2World) -> Stage:
    return http2_world.play()


@pytest.fixture
def client(stage: Stage) -> Http2Client:
    return Http2Client(stage)


class Serve:
    """Serves the connection that was dialled last."""

    def __init__(self, world: Http2World, stage: Stage, client: Http2Client) -> None:
        self._world, self._stage, self._client = world, stage, client

    def __call__(self, *, most: int | None = None) -> Http2Origin:
        origin = Http2Origin(
            self._world.serve(self._stage, "example.com", "h2"), self._client, pumps=False
        )
        if most is not None:
            origin.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: most})
        origin.pump()
        return origin


@pytest.fixture
def serve(http2_world: Http2World, stage: Stage, client: Http2Client) -> Serve:
    return Serve(http2_world, stage, client)


def test_streams_beyond_the_origins_limit_wait_their_turn(
    client: Http2Client, serve: Serve, stage: Stage
) -> None:
    asked = [client.get(path=f"/{number}") for number in range(5)]
    origin = serve(most=2)
    at_once: list[int] = []
    while len(origin.messages) < 5 or not client.messages[asked[-1]].over:
        open_now = [number for number, message in origin.messages.items() if message.fields]
        at_once.append(len(open_now) - len(at_once))
        origin.answer(open_now[len(at_once) - 1])

    assert max(at_once) == 2
    assert all(client.messages[number].over for number in asked)
    assert len(stage.upstreams) == 1


def test_a_goaway_lets_open_streams_end_and_new_ones_go_elsewhere(
    client: Http2Client, serve: Serve, stage: Stage
) -> None:
    first = client.get(path="/1")
    old = serve()
    old.sends_raw(GoAwayFrame(0, last_stream_id=1).serialize())
    second = client.get(path="/2")
    new = serve()
    new.answer(1, body=b"new")
    old.answer(1, body=b"old")

    assert (client.messages[first].body, client.messages[second].body) == (b"old", b"new")
    assert [upstream.closed for upstream in stage.upstreams] == [True, False]


def test_a_stream_that_the_origin_did_not_work_on_is_asked_again(
    client: Http2Client, serve: Serve, stage: Stage
) -> None:
    asked = client.ask(*pseudo("POST"))
    old = serve()
    old.sends_raw(GoAwayFrame(0, last_stream_id=0).serialize())
    new = serve()
    new.answer(1, body=b"hi")

    assert client.messages[asked].body == b"hi"
    assert stage.upstreams[0].closed


def test_a_refused_stream_is_asked_again_once(
    client: Http2Client, serve: Serve, ledger: Ledger
) -> None:
    asked = client.ask(*pseudo("POST"))
    origin = serve()
    for number in (1, 3):
        origin.h2.reset_stream(number, ErrorCodes.REFUSED_STREAM)
        origin.pump()

    assert sorted(origin.messages) == [1, 3]
    assert client.messages[asked].reason == "upstream-closed"
    assert b"REFUSED_STREAM" in client.messages[asked].body
    assert ledger.last.status == 502


@pytest.mark.parametrize(
    "fields",
    [
        [(":status", "200"), ("x y", "z")],
        [(":status", "200"), ("connection", "close")],
        [(":status", "200"), ("content-length", "1"), ("content-length", "2")],
        [(":status", "abc")],
        [(":status", "101")],
    ],
)
def test_a_malformed_answer_is_a_fault_of_its_stream_alone(
    client: Http2Client, serve: Serve, ledger: Ledger, fields: list[tuple[str, str]]
) -> None:
    bad, good = client.get(path="/bad"), client.get(path="/good")
    origin = serve()
    origin.h2.send_headers(1, fields)
    origin.pump()
    origin.answer(3, body=b"hi")

    assert client.messages[bad].reason == "upstream-bad-answer"
    assert client.messages[good].body == b"hi"
    assert origin.messages[1].reset
    assert ledger.outcomes[0].error == "upstream-bad-answer"


@pytest.mark.parametrize(
    ("length", "word"), [("1", "upstream-bad-answer"), ("9", "upstream-cut-short")]
)
def test_an_answer_of_another_length_is_reset(
    client: Http2Client, serve: Serve, ledger: Ledger, length: str, word: str
) -> None:
    asked = client.get()

    serve().answer(1, ("content-length", length), body=b"two")

    assert client.messages[asked].reset
    assert ledger.last.error == word


def test_a_value_that_ends_in_a_blank_comes_down_without_it(
    client: Http2Client, serve: Serve
) -> None:
    asked = client.get()

    serve().answer(1, ("content-security-policy", "frame-ancestors 'none' "))

    assert client.messages[asked].fields["content-security-policy"] == "frame-ancestors 'none'"


def test_interim_answers_come_down(client: Http2Client, serve: Serve) -> None:
    asked = client.get()
    origin = serve()
    origin.h2.send_headers(1, [(":status", "103"), ("link", "</a>")])
    origin.answer(1, body=b"hi")

    assert client.messages[asked].interim == {":status": "103", "link": "</a>"}
    assert client.messages[asked].body == b"hi"


def test_interim_answers_without_end_are_a_bad_answer(client: Http2Client, serve: Serve) -> None:
    asked = client.get()
    origin = serve()
    for _ in range(40):
        if not origin.messages[1].reset:
            origin.h2.send_headers(1, [(":status", "103")])
            origin.pump()

    assert client.messages[asked].reason == "upstream-bad-answer"


def test_an_early_answer_stops_the_upload_and_arrives(
    client: Http2Client, serve: Serve, stage: Stage, ledger: Ledger
) -> None:
    asked = client.ask(*pseudo("POST"), end=False)
    origin = serve()
    client.sends(asked, b"x" * 1000)
    origin.answer(1, body=b"enough")
    for _ in range(2):
        client.pump(stage.passes_time())
    origin.pump()

    assert (client.messages[asked].body, client.messages[asked].over) == (b"enough", True)
    assert client.messages[asked].code == ErrorCodes.NO_ERROR
    assert origin.messages[1].reset
    assert (ledger.last.status, ledger.last.error) == (200, None)


def test_an_upload_goes_on_after_an_early_answer_while_the_origin_takes_it(
    client: Http2Client, serve: Serve, stage: Stage, ledger: Ledger
) -> None:
    asked = client.ask(*pseudo("POST"), end=False)
    origin = serve()
    origin.answer(1, body=b"accepted")
    for _ in range(5):
        client.sends(asked, b"x" * 1000)
        client.pump(stage.passes_time())
    client.sends(asked, b"", end=True)
    origin.pump()

    assert (origin.messages[1].body, origin.messages[1].over) == (b"x" * 5000, True)
    assert not origin.messages[1].reset
    assert not client.messages[asked].reset
    assert (ledger.last.status, ledger.last.bytes_up, ledger.last.error) == (200, 5000, None)


def test_an_upload_stops_where_the_origin_resets_it_after_its_answer(
    client: Http2Client, serve: Serve, stage: Stage, ledger: Ledger
) -> None:
    asked = client.ask(*pseudo("POST"), end=False)
    origin = serve()
    origin.answer(1, body=b"enough")
    origin.h2.reset_stream(1, ErrorCodes.NO_ERROR)
    origin.pump()
    for _ in range(2):
        client.pump(stage.passes_time())

    assert client.messages[asked].code == ErrorCodes.NO_ERROR
    assert (ledger.last.status, ledger.last.error) == (200, None)


def test_an_origin_that_breaks_the_protocol_is_left(
    client: Http2Client, serve: Serve, stage: Stage, ledger: Ledger
) -> None:
    asked = client.get()
    origin = serve()

    origin.sends_raw(b"\x00\x00\x01\x06\x00\x00\x00\x00\x00x")

    assert client.messages[asked].reason == "upstream-bad-answer"
    assert stage.upstream.closed
    assert ledger.last.error == "upstream-bad-answer"


def test_a_kept_connection_that_is_dead_is_dialled_again_where_that_is_safe(
    client: Http2Client, serve: Serve, stage: Stage
) -> None:
    client.get()
    serve().answer(1)
    asked = client.get(path="/2")

    client.pump(stage.upstream_ends())
    serve().answer(1, body=b"hi")

    assert client.messages[asked].body == b"hi"
