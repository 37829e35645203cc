"""Laws of HTTP/1.1 bodies: parsing and writing."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from claude_proxy.wire.http1.body import (
    LAST_CHUNK,
    Body,
    ChunkedBody,
    CloseBody,
    LengthBody,
    ResponseChunkedBody,
    body_of_request,
    body_of_response,
    chunk,
    emit_trailers,
)
from claude_proxy.wire.http1.head import BadMessage
from claude_proxy.wire.http1.request import read_request_head
from claude_proxy.wire.http1.response import read_response_head

BUDGET = settings(max_examples=300, derandomize=True, deadline=None)


def take(body: Body, *pieces: bytes) -> tuple[bytes, bool, bytes]:
    """Feed the pieces until the body is done; return all its content and all that is left."""
    content, done, rest = b"", False, b""
    for piece in pieces:
        if done:
            rest += piece
            continue
        more, done, rest = body.feed(piece)
        content += more
    return content, done, rest


def bytewise(message: bytes) -> list[bytes]:
    return [message[i : i + 1] for i in range(len(message))]


def refuse(message: bytes) -> None:
    """Hold `message` against the parsers of both sides."""
    refuse_of_request(message)
    for pieces in ([message], bytewise(message)):
        with pytest.raises(BadMessage) as caught:
            take(ResponseChunkedBody(), *pieces)
        assert caught.value.status == 502


def refuse_of_request(message: bytes) -> None:
    for pieces in ([message], bytewise(message)):
        with pytest.raises(BadMessage) as caught:
            take(ChunkedBody(), *pieces)
        assert caught.value.status == 400


# --- length and close


def test_a_body_of_known_length_ends_there() -> None:
    body = LengthBody(5)

    assert body.feed(b"he") == (b"he", False, b"")
    assert not body.eof()
    assert body.feed(b"lloGET") == (b"llo", True, b"GET")
    assert body.feed(b"/") == (b"", True, b"/")
    assert body.trailers == []


def test_a_body_of_known_length_passes_without_a_copy() -> None:
    data = b"x" * 65536

    assert LengthBody(65536).feed(data)[0] is data
    assert LengthBody(65537).feed(data)[0] is data


def test_a_body_until_close_ends_only_by_closing() -> None:
    body = CloseBody()

    assert body.feed(b"HTTP/1.1 200 OK\r\n\r\n") == (b"HTTP/1.1 200 OK\r\n\r\n", False, b"")
    assert body.eof()


# --- which body a head has


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        (b"X: y", None),
        (b"Content-Length: 0", None),
        (b"Content-Length: 1", LengthBody),
        (b"Transfer-Encoding: chunked", ChunkedBody),
    ],
)
def test_the_head_of_a_request_determines_its_body(field: bytes, kind: type[Body] | None) -> None:
    message = b"POST / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n"
    head = read_request_head(bytearray(message), 1000)
    assert head is not None

    body = body_of_request(head)

    assert body is None if kind is None else isinstance(body, kind)


@pytest.mark.parametrize(
    ("status", "method", "field", "kind"),
    [
        (200, "GET", b"X: y", CloseBody),
        (200, "GET", b"Content-Length: 0", None),
        (200, "GET", b"Content-Length: 1", LengthBody),
        (200, "GET", b"Transfer-Encoding: chunked", ChunkedBody),
        (200, "HEAD", b"Content-Length: 1", None),
        (200, "HEAD", b"Transfer-Encoding: chunked", None),
        (304, "GET", b"Content-Length: 1", None),
        (204, "GET", b"X: y", None),
        (103, "GET", b"X: y", None),
        (200, "CONNECT", b"Content-Length: 1", None),
        (403, "CONNECT", b"Content-Length: 1", LengthBody),
    ],
)
def test_the_head_of_a_response_and_the_method_determine_its_body(
    status: int, method: str, field: bytes, kind: type[Body] | None
) -> None:
    message = b"HTTP/1.1 %d X\r\n" % status + field + b"\r\n\r\n"
    head = read_response_head(bytearray(message), 1000, method=method)
    assert head is not None

    body = body_of_response(head, method)

    assert body is None if kind is None else isinstance(body, kind)


def test_malformed_chunks_of_a_response_are_a_bad_gateway() -> None:
    message = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    head = read_response_head(bytearray(message), 1000, method="GET")
    assert head is not None
    body = body_of_response(head, "GET")
    assert body is not None

    with pytest.raises(BadMessage) as caught:
        body.feed(b"-1\r\n")

    assert caught.value.status == 502


# --- chunks


@pytest.mark.parametrize(
    ("message", "content"),
    [
        (b"0\r\n\r\n", b""),
        (b"000\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"1\r\n\r\r\n2\r\n\r\n\r\n0\r\n\r\n", b"\r\r\n"),
        (b"00000000000a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b'2;a;b=c;d="e; \\" f"\r\nhi\r\n0;x\r\n\r\n', b"hi"),
    ],
)
def test_chunks_are_read_whole_or_byte_by_byte(message: bytes, content: bytes) -> None:
    assert ChunkedBody().feed(message + b"GET /") == (content, True, b"GET /")
    assert take(ChunkedBody(), *bytewise(message + b"GET /")) == (content, True, b"GET /")


def test_a_chunked_body_does_not_end_by_closing() -> None:
    assert not ChunkedBody().eof()


def test_a_complete_body_takes_no_more_bytes() -> None:
    body = ChunkedBody()
    body.feed(LAST_CHUNK)

    assert body.feed(b"5\r\nhello") == (b"", True, b"5\r\nhello")
    assert body.feed(b"") == (b"", True, b"")


def test_a_long_chunk_passes_without_a_copy() -> None:
    body = ChunkedBody()
    body.feed(b"fffffff\r\n")
    data = b"x" * 65536

    assert body.feed(data)[0] is data


def test_the_longest_size_is_sixteen_digits() -> None:
    assert ChunkedBody().feed(b"f" * 16 + b"\r\nabc") == (b"abc", False, b"")
    refuse(b"0" * 17)


@pytest.mark.parametrize(
    "message",
    [
        b"\r\n",
        b"g\r\n",
        b"+5\r\n",
        b"-5\r\n",
        b" 5\r\n",
        b"0x5\r\n",
        b"5_0\r\n",
        b"\xb25\r\n",
        b"5\n",
        b"5;a\n",
        b"5\rX",
        b"5\r\r\n",
        b"5;\r\n",
        b"5;;a\r\n",
        b"5;a=\r\n",
        b"5;a b\r\n",
        b'5;a="b\r\n',
        b'5;a="b\r\n"\r\n',
        b"5;a=\x00",
        b"5;a\rb",
        b";a\r\n",
        b"1\r\naX",
        b"1\r\na\rX",
        b"1\r\na\n",
        b"1\r\nab\r\n",
        b"1\r\na0\r\n",
    ],
)
def test_a_chunk_that_could_be_read_otherwise_is_refused(message: bytes) -> None:
    refuse(message)


@pytest.mark.parametrize(
    "line",
    [
        b"5 ",
        b"5\t \t",
        b"5\t;a",
        b"5; a",
        b"5;a ",
        b"5;a =b",
        b"5;a= b",
        b'5 ; a = "b" ; c\t',
    ],
)
def test_white_space_in_a_chunk_line_is_taken_from_a_server_alone(line: bytes) -> None:
    message = line + b"\r\nhello\r\n0" + line[1:] + b"\r\n\r\nHTTP"

    for pieces in ([message], bytewise(message)):
        assert take(ResponseChunkedBody(), *pieces) == (b"hello", True, b"HTTP")
    refuse_of_request(message)


def test_a_chunk_line_is_bounded() -> None:
    line = b"1;" + b"a" * 508 + b"\r\n"

    assert ChunkedBody().feed(line + b"x") == (b"x", False, b"")
    assert take(ChunkedBody(), *bytewise(line + b"x")) == (b"x", False, b"")
    refuse(b"1;" + b"a" * 509 + b"\r\n")
    refuse(b"1;" + b"a" * 2000)
    with pytest.raises(BadMessage):
        take(ChunkedBody(), b"1;" + b"a" * 300, b"a" * 300 + b"\r\n")


# --- trailers


def test_trailers_are_known_when_the_body_is_complete() -> None:
    message = b"1\r\nx\r\n0\r\nX-Checksum: 1\r\nx-b:2 \r\n\r\nGET"
    fields = [(b"X-Checksum", b"1"), (b"x-b", b"2")]
    whole, apart = ChunkedBody(), ChunkedBody()

    assert whole.feed(message) == (b"x", True, b"GET")
    assert take(apart, *bytewise(message)) == (b"x", True, b"GET")
    assert whole.trailers == apart.trailers == fields


@pytest.mark.parametrize(
    "line",
    [
        b" X: a",
        b"X",
        b"X: a\rb",
        b"X: a\nb",
        b"X: \x00",
        b"X: \x01",
    ],
)
def test_a_malformed_trailer_is_refused(line: bytes) -> None:
    refuse(b"0\r\n" + line + b"\r\n\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: 5",
        b"transfer-ENCODING: chunked",
        b"Host: a",
        b"Authorization: Bearer x",
        b"Cookie: a",
        b"Set-Cookie: a",
        b"Connection: close",
        b"Content-Type: a",
        b"Content_Length: 5",
    ],
)
def test_a_trailer_that_frames_or_routes_is_refused_in_a_request_and_dropped_from_a_response(
    line: bytes,
) -> None:
    message = b"0\r\nA: b\r\n" + line + b"\r\n\r\n"
    response = ResponseChunkedBody()

    refuse_of_request(message)
    assert response.feed(message) == (b"", True, b"")
    assert response.trailers == [(b"A", b"b")]


@pytest.mark.parametrize("line", [b"X : a", b"X: a ", b"X:\r\n a"])
def test_a_trailer_is_repaired_in_a_response_alone(line: bytes) -> None:
    message = b"0\r\nA: b\r\n" + line + b"\r\n\r\n"
    response = ResponseChunkedBody()

    assert take(response, *bytewise(message)) == (b"", True, b"")
    assert response.trailers == [(b"A", b"b"), (b"X", b"a")]
    if not line.endswith(b" "):
        refuse_of_request(message)


def test_trailers_are_bounded() -> None:
    refuse(b"0\r\nX: " + b"a" * 10000)
    refuse(b"0\r\nX: " + b"a" * 10000 + b"\r\n\r\n")
    with pytest.raises(BadMessage):
        ChunkedBody().feed(b"0\r\n" + b"X: y\r\n" * 201 + b"\r\n")


@pytest.mark.parametrize("message", [b"0\r\nX\n", b"0\r\nX\rY", b"0\r\nX\x00", b"0\r\n\n"])
def test_garbage_in_trailers_is_refused_at_once(message: bytes) -> None:
    refuse(message)


# --- writing


def test_an_empty_chunk_is_not_written_as_it_would_be_the_last() -> None:
    assert chunk(b"") == b""
    assert chunk(b"0123456789") == b"a\r\n0123456789\r\n"


def test_trailers_are_written_after_the_last_chunk() -> None:
    trailers = [(b"X-A", b"1"), (b"X_Override", b"2")]

    assert emit_trailers([]) == LAST_CHUNK
    assert emit_trailers(trailers) == b"0\r\nX-A: 1\r\nX_Override: 2\r\n\r\n"
    assert emit_trailers(trailers, drop=frozenset({b"x-override"})) == b"0\r\nX-A: 1\r\n\r\n"


@BUDGET
@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(0, 400), max_size=6))
@example([b"x" * 5000, b"y" * 70000], [3, 5006])
def test_what_is_written_is_read_however_it_is_cut(parts: list[bytes], cuts: list[int]) -> None:
    message = b"".join(map(chunk, parts)) + emit_trailers([(b"X-T", b"1")]) + b"GET"
    edges = [0, *sorted(cuts), len(message)]
    pieces = [message[a:b] for a, b in pairwise(edges)]
    body = ChunkedBody()

    assert take(body, *pieces) == (b"".join(parts), True, b"GET")
    assert body.trailers == [(b"X-T", b"1")]


def outcome_of(body: Body, pieces: list[bytes]) -> tuple[bytes, bool, bytes] | None:
    try:
        return take(body, *pieces)
    except BadMessage:
        return None


@BUDGET
@given(
    st.lists(
        st.sampled_from(
            [b"0\r\n", b"\r\n", b"3\r\n", b"abc", b"1;a=b\r\n", b"2 ; a\r\n", b"X: y\r\n"]
        )
        | st.binary(max_size=3),
        max_size=12,
    ),
)
def test_chunks_mean_the_same_in_any_pieces(parts: list[bytes]) -> None:
    message = b"".join(parts)

    for kind in (ChunkedBody, ResponseChunkedBody):
        assert outcome_of(kind(), bytewise(message)) == outcome_of(kind(), [message])
