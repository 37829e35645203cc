"""The laws of a stream at an origin of HTTP/1.1: framed by us, answered over the strict wire."""

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import DataFrame

from tests.proxy.layers.http2_peers import Http2Client, Message, pseudo
from tests.proxy.layers.http2_world import Http2World
from tests.proxy.layers.stage import Ledger, Stage
from tests.proxy.layers.tls_peers import TlsOrigin


class Talk:
    """A stream of an HTTP/2 client on one side, an origin's bytes on the other."""

    def __init__(self, world: Http2World) -> None:
        self._world = world
        self.stage: Stage = world.play()
        self.client = Http2Client(self.stage)
        self.stream = 0
        self.origin: TlsOrigin

    def asks(
        self, method: str = "GET", *fields: tuple[str, str], body: bytes = b"", end: bool = True
    ) -> bytes:
        """Send a request; return what the origin gets of it."""
        known = len(self.stage.upstreams)
        self.stream = self.client.ask(*pseudo(method), *fields, body=body, end=end)
        if len(self.stage.upstreams) > known:
            self.origin = self._world.serve(self.stage, "example.com", "http/1.1")
        return self.origin.gets()

    def sends(self, body: bytes, *, end: bool = False) -> bytes:
        self.client.sends(self.stream, body, end=end)
        return self.origin.gets()

    def answers(self, data: bytes) -> None:
        self.client.pump(self.origin.answers(data))

    def ends(self, error: str | None = None) -> None:
        self.client.pump(self.stage.upstream_ends(self.origin.peer, error=error))

    @property
    def answer(self) -> Message:
        return self.client.messages[self.stream]

    @property
    def is_closed(self) -> bool:
        """Whether the proxy has closed the origin's connection."""
        return self.origin.peer.closed


@pytest.fixture
def talk(http2_world: Http2World) -> Talk:
    return Talk(http2_world)


# --- the request


def test_a_request_without_a_body_says_so_where_one_is_expected(talk: Talk) -> None:
    sent = talk.asks("POST")

    assert sent == b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n"


def test_a_get_without_a_body_says_nothing_of_it(talk: Talk) -> None:
    assert talk.asks("GET") == b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"


def test_fields_of_a_hop_do_not_go_up(talk: Talk) -> None:
    sent = talk.asks("GET", ("te", "trailers"), ("http2-settings", "x"), ("x", "y"))

    assert sent == b"GET / HTTP/1.1\r\nx: y\r\nHost: example.com\r\n\r\n"


def test_a_body_without_a_length_goes_in_chunks(talk: Talk) -> None:
    talk.asks("POST", end=False)

    assert talk.sends(b"abc") == b"3\r\nabc\r\n"
    assert talk.sends(b"", end=True) == b"0\r\n\r\n"


def test_a_body_with_a_length_keeps_to_it(talk: Talk) -> None:
    talk.asks("POST", ("content-length", "3"), end=False)

    assert talk.sends(b"ab") == b"ab"
    assert talk.sends(b"c", end=True) == b"c"
    assert not talk.answer.fields


@pytest.mark.parametrize(
    ("body", "says"), [(b"abcd", b"longer than its length"), (b"ab", b"shorter than its length")]
)
def test_a_body_of_another_length_ends_the_connection(talk: Talk, body: bytes, says: bytes) -> None:
    talk.asks("POST", ("content-length", "3"), end=False)

    sent = talk.sends(body, end=True)

    assert sent == b""
    assert says in talk.answer.body
    assert talk.is_closed


def test_a_stream_that_is_given_up_closes_the_connection(talk: Talk) -> None:
    talk.asks("POST", end=False)

    talk.client.h2.reset_stream(talk.stream)
    talk.client.pump()
    talk.answers(b"HTTP/1.1 200 OK\r\n\r\n")

    assert talk.is_closed
    assert not talk.answer.fields


# --- the answer


def test_an_answer_comes_as_it_comes(talk: Talk) -> None:
    talk.asks()
    talk.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    before = talk.answer.body
    talk.answers(b"cd")

    assert before == b"ab"
    assert (talk.answer.body, talk.answer.over) == (b"abcd", True)
    assert not talk.is_closed


def test_an_answer_that_comes_byte_by_byte_is_read_all_the_same(talk: Talk) -> None:
    talk.asks()

    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi":
        talk.answers(bytes([byte]))

    assert (talk.answer.body, talk.answer.over) == (b"hi", True)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_an_answer_without_a_body_ends_with_its_head(
    talk: Talk, method: str, answer: bytes
) -> None:
    talk.asks(method)

    talk.answers(answer)

    assert (talk.answer.body, talk.answer.over) == (b"", True)


def test_interim_answers_come_before_the_final_one(talk: Talk) -> None:
    talk.asks()
    talk.answers(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    before = dict(talk.answer.interim)
    talk.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    assert before == {":status": "103", "link": "</a>"}
    assert (talk.answer.status, talk.answer.body) == (200, b"hi")


def test_trailers_come_after_a_body_in_chunks_in_lower_case(talk: Talk) -> None:
    talk.asks()

    talk.answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"
    )

    assert (talk.answer.body, talk.answer.trailers) == (b"hi", {"x-sum": "1"})
    assert talk.answer.over


def test_the_same_length_twice_comes_as_one(talk: Talk) -> None:
    talk.asks()

    talk.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2, 2\r\n\r\nhi")

    assert talk.answer.names.count("content-length") == 1
    assert (talk.answer.status, talk.answer.body, talk.answer.over) == (200, b"hi", True)


def test_an_early_answer_is_passed_on_whole_and_the_rest_of_the_body_dropped(
    talk: Talk, ledger: Ledger
) -> None:
    talk.asks("POST", ("content-length", "100000"), end=False)

    talk.answers(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
    late = DataFrame(talk.stream, data=b"x" * 10_000).serialize()
    talk.client.pump(talk.stage.says(late * 2))
    for _ in range(2):
        talk.client.pump(talk.stage.passes_time())

    assert talk.answer.code == ErrorCodes.NO_ERROR
    assert (talk.answer.status, talk.answer.body, talk.answer.over) == (413, b"no", True)
    assert talk.is_closed
    assert (ledger.last.status, ledger.last.error) == (413, None)


def test_a_body_that_ends_with_the_connection_is_whole_at_its_end(talk: Talk) -> None:
    talk.asks()
    talk.answers(b"HTTP/1.1 200 OK\r\n\r\nhi")

    talk.ends()

    assert (talk.answer.body, talk.answer.over) == (b"hi", True)


def test_a_body_that_breaks_off_is_not(talk: Talk, ledger: Ledger) -> None:
    talk.asks()
    talk.answers(b"HTTP/1.1 200 OK\r\n\r\nhi")

    talk.ends("ConnectionResetError")

    assert talk.answer.reset
    assert ledger.last.error == "upstream-cut-short"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
    ],
)
def test_an_answer_that_is_cut_short_is_not_whole(
    talk: Talk, ledger: Ledger, answer: bytes
) -> None:
    talk.asks()
    talk.answers(answer)

    talk.ends()

    assert talk.answer.reset
    assert ledger.last.error == "upstream-cut-short"


def test_an_end_without_an_answer_is_told_from_a_bad_one(talk: Talk) -> None:
    talk.asks()

    talk.ends()

    assert (talk.answer.status, talk.answer.reason) == (502, "upstream-closed")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 33,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_an_answer_that_is_not_one_is_refused(talk: Talk, ledger: Ledger, answer: bytes) -> None:
    talk.asks()

    talk.answers(answer)

    assert (talk.answer.status, talk.answer.reason) == (502, "upstream-bad-answer")
    assert (ledger.last.status, ledger.last.error) == (502, "upstream-bad-answer")
    assert talk.is_closed


def test_a_body_that_is_not_one_is_reset(talk: Talk, ledger: Ledger) -> None:
    talk.asks()

    talk.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")

    assert talk.answer.reset
    assert ledger.last.error == "upstream-bad-answer"


# --- the connection


def test_bytes_after_an_answer_answer_nothing(talk: Talk) -> None:
    talk.asks()

    talk.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\nevil")

    assert talk.answer.body == b"hi"
    assert talk.is_closed


def test_bytes_that_nobody_asked_for_close_the_connection(talk: Talk) -> None:
    talk.asks()
    talk.answers(b"HTTP/1.1 204 No Content\r\n\r\n")

    talk.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    closed = talk.is_closed
    talk.asks()

    assert closed
    assert len(talk.stage.upstreams) == 2


@pytest.mark.parametrize(("method", "dials"), [("GET", 2), ("POST", 1)])
def test_a_kept_connection_that_is_dead_is_dialled_again_where_that_is_safe(
    talk: Talk, method: str, dials: int
) -> None:
    talk.asks()
    talk.answers(b"HTTP/1.1 204 No Content\r\n\r\n")
    talk.asks(method)

    talk.ends()

    assert len(talk.stage.upstreams) == dials
    assert bool(talk.answer.fields) is (dials == 1)


def test_an_origin_is_not_read_while_its_client_takes_nothing(http2_world: Http2World) -> None:
    stage = http2_world.play()
    client = Http2Client(stage, reads=False)
    asked = client.get()
    origin = http2_world.serve(stage, "example.com", "http/1.1")
    client.pump(origin.answers(b"HTTP/1.1 200 OK\r\n\r\n"))
    sent, held = 0, False
    while sent < 2**21 and not (held := origin.peer.held):
        client.pump(origin.answers(b"x" * 16_384))
        sent += 16_384
    client.h2.increment_flow_control_window(2**24)
    client.h2.increment_flow_control_window(2**24, asked)
    client.pump()

    assert held
    assert sent < 512 * 1024
    assert [upstream.held for upstream in stage.upstreams] == [False]
    assert len(client.messages[asked].body) == sent
