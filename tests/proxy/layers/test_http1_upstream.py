"""The laws of a stream at an origin of HTTP/1.1: framed by us, answered over the strict wire."""

import pytest
from mitmproxy.connection import Client, Server
from mitmproxy.http import Headers, Request
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp

from claude_proxy.proxy.layers.http1_upstream import Http1Upstream
from tests.proxy.layers.stage import options_of

STREAM = 5


class Talk:
    """A stream on one side of an origin's connection, its bytes on the other."""

    def __init__(self) -> None:
        client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
        self.context = Context(client, options_of())
        self.context.server = Server(address=("example.com", 443))
        self.sent = bytearray()
        self.got: list[HttpEvent] = []
        self.closed = False
        self._layer = Http1Upstream(self.context, 4096)
        self.does(events.Start())

    def does(self, *happened: events.Event) -> None:
        for event in happened:
            for command in self._layer.handle_event(event):
                match command:
                    case commands.SendData():
                        assert not self.closed
                        self.sent += command.data
                    case commands.CloseConnection():
                        self.closed = True
                    case _:
                        assert isinstance(command, ReceiveHttp)
                        self.got.append(command.event)

    def asks(self, method: str = "GET", *fields: tuple[bytes, bytes], end: bool = True) -> None:
        request = Request.make(method, "https://example.com/")
        request.data.authority = b"example.com"
        request.headers = Headers(fields)
        self.does(RequestHeaders(STREAM, request, end))
        if end:
            self.does(RequestEndOfMessage(STREAM))

    def answers(self, data: bytes) -> None:
        self.does(events.DataReceived(self.context.server, data))

    def ends(self) -> None:
        self.does(events.ConnectionClosed(self.context.server))

    @property
    def body(self) -> bytes:
        return b"".join(event.data for event in self.got if isinstance(event, ResponseData))

    @property
    def kinds(self) -> list[type]:
        return [type(event) for event in self.got]

    @property
    def error(self) -> tuple[str, ErrorCode]:
        event = self.got[-1]
        assert isinstance(event, ResponseProtocolError)
        return event.message, event.code


@pytest.fixture
def talk() -> Talk:
    return Talk()


# --- the request


def test_a_request_without_a_body_says_so_where_one_is_expected(talk: Talk) -> None:
    talk.asks("POST")

    assert talk.sent == b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n"


def test_a_get_without_a_body_says_nothing_of_it(talk: Talk) -> None:
    talk.asks("GET")

    assert talk.sent == b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"


def test_fields_of_a_hop_do_not_go_up(talk: Talk) -> None:
    talk.asks("GET", (b"te", b"trailers"), (b"http2-settings", b"x"), (b"x", b"y"))

    assert talk.sent == b"GET / HTTP/1.1\r\nx: y\r\nHost: example.com\r\n\r\n"


def test_a_body_without_a_length_goes_in_chunks(talk: Talk) -> None:
    talk.asks("POST", end=False)
    talk.sent.clear()

    talk.does(RequestData(STREAM, b"abc"), RequestData(STREAM, b""), RequestEndOfMessage(STREAM))

    assert talk.sent == b"3\r\nabc\r\n0\r\n\r\n"


def test_a_body_with_a_length_keeps_to_it(talk: Talk) -> None:
    talk.asks("POST", (b"content-length", b"3"), end=False)
    talk.sent.clear()

    talk.does(RequestData(STREAM, b"ab"), RequestData(STREAM, b"c"), RequestEndOfMessage(STREAM))

    assert talk.sent == b"abc"
    assert talk.got == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"abcd", "the body is longer than its length says"),
        (b"ab", "the body is shorter than its length says"),
    ],
)
def test_a_body_of_another_length_ends_the_connection(talk: Talk, body: bytes, says: str) -> None:
    talk.asks("POST", (b"content-length", b"3"), end=False)

    talk.does(RequestData(STREAM, body), RequestEndOfMessage(STREAM))

    assert not talk.sent.endswith(b"d")
    assert talk.error[0] == says
    assert talk.closed


def test_a_stream_that_is_given_up_closes_the_connection(talk: Talk) -> None:
    talk.asks("POST", end=False)

    talk.does(RequestProtocolError(STREAM, "reset", ErrorCode.CANCEL))
    talk.answers(b"HTTP/1.1 200 OK\r\n\r\n")

    assert talk.closed
    assert talk.got == []


# --- the answer


def test_an_answer_comes_as_it_comes(talk: Talk) -> None:
    talk.asks()
    talk.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    before = list(talk.kinds)
    talk.answers(b"cd")

    assert before == [ResponseHeaders, ResponseData]
    assert talk.kinds == [ResponseHeaders, ResponseData, ResponseData, ResponseEndOfMessage]
    assert talk.body == b"abcd"
    assert talk.closed


def test_an_answer_that_comes_byte_by_byte_is_read_all_the_same(talk: Talk) -> None:
    talk.asks()

    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi":
        talk.answers(bytes([byte]))

    assert talk.body == b"hi"
    assert talk.kinds[-1] is ResponseEndOfMessage


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

    head, _ = talk.got
    assert isinstance(head, ResponseHeaders)
    assert head.end_stream
    assert talk.kinds == [ResponseHeaders, ResponseEndOfMessage]


def test_interim_answers_are_passed_over(talk: Talk) -> None:
    talk.asks()
    talk.answers(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    before = list(talk.got)
    talk.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    assert before == []
    assert talk.body == b"hi"


def test_a_length_that_is_said_twice_comes_once(talk: Talk) -> None:
    talk.asks()

    talk.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2, 2\r\n\r\nok")

    (head, *_) = talk.got
    assert isinstance(head, ResponseHeaders)
    assert head.response.headers.fields == ((b"Content-Length", b"2"),)
    assert talk.body == b"ok"


def test_trailers_come_after_a_body_in_chunks(talk: Talk) -> None:
    talk.asks()
    talk.answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"
    )

    assert talk.kinds == [ResponseHeaders, ResponseData, ResponseTrailers, ResponseEndOfMessage]
    trailers = talk.got[2]
    assert isinstance(trailers, ResponseTrailers)
    assert trailers.trailers.fields == ((b"X-Sum", b"1"),)


def test_a_body_that_ends_with_the_connection_is_whole_at_its_end(talk: Talk) -> None:
    talk.asks()
    talk.answers(b"HTTP/1.1 200 OK\r\n\r\nhi")

    talk.ends()

    assert talk.kinds[-1] is ResponseEndOfMessage


def test_a_body_that_breaks_off_is_not(talk: Talk) -> None:
    talk.asks()
    talk.answers(b"HTTP/1.1 200 OK\r\n\r\nhi")
    talk.context.server.error = "ConnectionResetError"

    talk.ends()

    assert talk.error == ("the response was cut short", ErrorCode.RESPONSE_VALIDATION_FAILED)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
    ],
)
def test_an_answer_that_is_cut_short_is_not_whole(talk: Talk, answer: bytes) -> None:
    talk.asks()
    talk.answers(answer)

    talk.ends()

    assert talk.error[0] == "the response was cut short"


def test_an_end_without_an_answer_is_told_from_a_bad_one(talk: Talk) -> None:
    talk.asks()

    talk.ends()

    assert talk.error[1] is ErrorCode.GENERIC_SERVER_ERROR


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 33,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_an_answer_that_is_not_one_is_refused(talk: Talk, answer: bytes) -> None:
    talk.asks()

    talk.answers(answer)

    assert talk.error[1] is ErrorCode.RESPONSE_VALIDATION_FAILED
    assert talk.closed


def test_bytes_after_an_answer_are_of_no_interest(talk: Talk) -> None:
    talk.asks()

    talk.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\nevil")

    assert talk.body == b"hi"
