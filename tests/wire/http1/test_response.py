"""Laws of response heads: parsing them, and writing them for the client."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_proxy.wire.http1.emit import Framing, emit_response_head, framing_of
from claude_proxy.wire.http1.head import BadMessage, ResponseHead
from claude_proxy.wire.http1.response import read_response_head

LIMIT = 4096


def answer(*fields: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"".join(line + b"\r\n" for line in (start, *fields)) + b"\r\n"


def read(message: bytes, method: str = "GET", limit: int = LIMIT) -> ResponseHead:
    head = read_response_head(bytearray(message), limit, method=method)
    assert head is not None
    return head


def refuse(message: bytes, method: str = "GET", limit: int = LIMIT) -> None:
    with pytest.raises(BadMessage) as caught:
        read_response_head(bytearray(message), limit, method=method)
    assert caught.value.status == 502
    assert caught.value.text


# --- what a head says


def test_a_head_is_read_as_sent() -> None:
    head = read(answer(b"Content-Length: 5", b"set-COOKIE:a=b ", start=b"HTTP/1.1 404 Not  Here"))

    assert (head.status, head.phrase, head.minor) == (404, b"Not  Here", 1)
    assert head.fields == [(b"Content-Length", b"5"), (b"set-COOKIE", b"a=b")]
    assert (head.length, head.chunked, head.keep_alive) == (5, False, True)
    assert head.get(b"set-cookie") == b"a=b"
    assert repr(head) == "<ResponseHead 404, 2 fields>"


def test_only_the_head_leaves_the_buffer() -> None:
    buffer = bytearray(answer() + b"HTTP")

    read_response_head(buffer, LIMIT, method="GET")

    assert bytes(buffer) == b"HTTP"


@pytest.mark.parametrize(
    ("start", "phrase"),
    [
        (b"HTTP/1.1 200", b""),
        (b"HTTP/1.1 200 ", b""),
        (b"HTTP/1.0 200 OK", b"OK"),
        (b"HTTP/1.1 200 \xc3\xa7a va\t", b"\xc3\xa7a va\t"),
        (b"HTTP/1.1 999 Request denied", b"Request denied"),
    ],
)
def test_the_status_lines_of_real_servers_are_read(start: bytes, phrase: bytes) -> None:
    assert read(answer(start=start)).phrase == phrase


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/2.0 200 OK",
        b"http/1.1 200 OK",
        b"ICY 200 OK",
        b" HTTP/1.1 200 OK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 O\x1bK",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 200 O\nK",
        b"HTTP/1.1",
        b"",
    ],
)
def test_any_other_status_line_is_refused(start: bytes) -> None:
    refuse(answer(start=start))


@pytest.mark.parametrize(
    "line",
    [
        b" X: a",
        b"X",
        b": a",
        b"X Y: a",
        b"X: a\rb",
        b"X: a\nb",
        b"X: \x00",
        b"X: \x08",
    ],
)
def test_a_malformed_field_line_is_refused(line: bytes) -> None:
    refuse(answer(line))


def test_more_than_two_hundred_fields_are_refused() -> None:
    assert len(read(answer(*[b"X: y"] * 200)).fields) == 200
    refuse(answer(*[b"X: y"] * 201))


@pytest.mark.parametrize(
    ("fields", "minor", "keeps"),
    [
        ([], 1, True),
        ([b"Connection: close"], 1, False),
        ([b"connection: Keep-Alive, CLOSE"], 1, False),
        ([b"Connection: keep-alive"], 1, True),
        ([b"Connection: Keep-Alive: timeout=5"], 1, False),
        ([], 0, False),
        ([b"Connection: keep-alive"], 0, True),
    ],
)
def test_a_connection_is_kept_as_rfc_9112_says(
    fields: list[bytes], minor: int, *, keeps: bool
) -> None:
    head = read(answer(b"Content-Length: 0", *fields, start=b"HTTP/1.%d 200 OK" % minor))

    assert head.keep_alive is keeps


@pytest.mark.parametrize(
    "message",
    [
        b"HTTP/1.1 200 OK\nX: y\nContent-Length: 2\n\n",
        b"HTTP/1.1 200 OK\nX: y\r\nContent-Length: 2\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 2\r\n\n",
        b"HTTP/1.1 200 OK\r\nX : y \r\nContent-Length\t: 2\r\n\r\n",
    ],
)
def test_a_head_that_the_rfc_lets_us_repair_is_written_well(message: bytes) -> None:
    rest = b"ok\r\n\r\n"

    for pieces in ([message + rest], [bytes([byte]) for byte in message] + [rest]):
        buffer, head = bytearray(), None
        for piece in pieces:
            buffer += piece
            head = head or read_response_head(buffer, LIMIT, method="GET")
        assert head is not None
        assert bytes(buffer) == rest
        written = emit_response_head(head, framing=Framing.LENGTH, keep_alive=True)
        assert written == answer(b"X: y", b"Content-Length: 2")


def test_a_coding_is_read_without_the_white_space_around_it() -> None:
    assert read(answer(b"Transfer-Encoding : chunked\t ")).chunked


# --- framing


@pytest.mark.parametrize(
    "fields",
    [
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Content-Length: 5", b"Content-Length: 05"],
        [b"Content-Length: 5, 6"],
        [b"Content-Length: 5, 5", b"Content-Length: 6"],
        [b"Content-Length: 5,"],
        [b"Content-Length: , 5"],
        [b"Content-Length: +5"],
        [b"Content-Length:"],
        [b"Content-Length: " + b"1" * 20],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: chunked, chunked"],
        [b"Transfer-Encoding:"],
        [b"Content-Length : 5", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 5", b"Transfer-Encoding : chunked"],
        [b"Transfer-Encoding: x\r\n chunked"],
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_framing_that_could_be_read_twice_is_refused(fields: list[bytes], method: str) -> None:
    refuse(answer(*fields), method)


def test_http_1_0_has_no_transfer_coding() -> None:
    refuse(answer(b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK"))


@pytest.mark.parametrize(
    "fields",
    [
        [b"Content-Length: 5", b"X: y", b"content-length: 5"],
        [b"Content-Length: 5, 5", b"X: y"],
        [b"Content-Length: 5 ,\t5,5", b"X: y", b"content-length: 5"],
        [b"Content-Length :\r\n 5", b"X: y"],
    ],
)
def test_equal_lengths_are_folded_to_one(fields: list[bytes]) -> None:
    head = read(answer(*fields))

    assert head.length == 5
    assert head.fields == [(b"Content-Length", b"5"), (b"X", b"y")]
    assert emit_response_head(head, framing=Framing.LENGTH, keep_alive=True) == answer(
        b"Content-Length: 5", b"X: y"
    )


@pytest.mark.parametrize(
    ("fields", "framing", "keeps"),
    [
        ([b"Content-Length: 5"], Framing.LENGTH, True),
        ([b"Content-Length: 0"], Framing.LENGTH, True),
        ([b"Transfer-Encoding: Chunked"], Framing.CHUNKED, True),
        ([], Framing.CHUNKED, False),
    ],
)
def test_an_answer_to_http_1_1_has_length_or_chunks(
    fields: list[bytes], framing: Framing, *, keeps: bool
) -> None:
    head = read(answer(*fields))

    assert framing_of(head, method="GET", minor=1) is framing
    assert head.keep_alive is keeps


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        ([b"Content-Length: 5"], Framing.LENGTH),
        ([b"Transfer-Encoding: chunked"], Framing.CLOSE),
        ([], Framing.CLOSE),
    ],
)
def test_an_answer_to_http_1_0_has_length_or_ends_by_closing(
    fields: list[bytes], framing: Framing
) -> None:
    assert framing_of(read(answer(*fields)), method="GET", minor=0) is framing


@pytest.mark.parametrize(
    ("start", "method", "length"),
    [
        (b"HTTP/1.1 200 OK", "HEAD", 5),
        (b"HTTP/1.1 304 Not Modified", "GET", 5),
        (b"HTTP/1.1 204 No Content", "GET", None),
        (b"HTTP/1.1 200 Connected", "CONNECT", None),
    ],
)
def test_an_answer_without_body_is_not_framed(
    start: bytes, method: str, length: int | None
) -> None:
    head = read(answer(b"Content-Length: 5", start=start), method)

    assert framing_of(head, method=method, minor=1) is Framing.NONE
    assert head.length == length
    # Content after 204 or an answer to CONNECT would be taken for the next answer.
    assert head.keep_alive is (length is not None)


@pytest.mark.parametrize("field", [b"Content-Length: 0", b"X: y"])
def test_an_empty_length_does_no_harm_to_an_answer_without_body(field: bytes) -> None:
    head = read(answer(field, start=b"HTTP/1.1 204 No Content"))

    assert head.keep_alive
    assert head.length is None


def test_chunks_announced_for_no_content_end_the_connection() -> None:
    head = read(answer(b"Transfer-Encoding: chunked", start=b"HTTP/1.1 204 No Content"))

    assert not head.keep_alive
    assert not head.chunked


@pytest.mark.parametrize("field", [b"Content-Length: 1", b"Transfer-Encoding: chunked"])
def test_an_interim_answer_with_content_is_refused(field: bytes) -> None:
    refuse(answer(field, start=b"HTTP/1.1 103 Early Hints"))


def test_a_refused_connect_is_an_ordinary_answer() -> None:
    head = read(answer(b"Content-Length: 5", start=b"HTTP/1.1 407 No"), "CONNECT")

    assert framing_of(head, method="CONNECT", minor=1) is Framing.LENGTH


# --- switching protocols


def test_a_switch_names_its_protocol() -> None:
    fields = (b"Upgrade: WebSocket", b"Connection: upgrade", b"Sec-WebSocket-Accept: x")

    head = read(answer(*fields, start=b"HTTP/1.1 101 Switching Protocols"))

    assert head.upgrade == ("websocket",)
    assert emit_response_head(head, framing=Framing.NONE, keep_alive=True) == answer(
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: x",
        start=b"HTTP/1.1 101 Switching Protocols",
    )


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b"Upgrade: websocket"],
        [b"Connection: Upgrade"],
        [b"Connection: Upgrade", b"Upgrade: web socket"],
    ],
)
def test_a_switch_to_no_protocol_is_refused(fields: list[bytes]) -> None:
    refuse(answer(*fields, start=b"HTTP/1.1 101 Switching Protocols"))


def test_an_upgrade_offered_in_an_ordinary_answer_is_not_one() -> None:
    head = read(answer(b"Connection: Upgrade", b"Upgrade: h2", b"Content-Length: 0"))

    assert head.upgrade == ()
    assert emit_response_head(head, framing=Framing.LENGTH, keep_alive=True) == answer(
        b"Content-Length: 0"
    )


# --- limits, and refusing early


def test_a_head_of_exactly_the_limit_is_read() -> None:
    message = answer()

    assert read(message, limit=len(message)).status == 200
    refuse(message, limit=len(message) - 1)


@pytest.mark.parametrize(
    "beginning",
    [
        b"\x15\x03\x01",
        b"SSH-2.0",
        b"HTTP/2",
        b"HTTP/1.1 2x",
        b"HTTP/1.1 200x",
        b"HTTP/1.1 200 \x00",
        b"HTTP/1.1 200 OK\n\r\r",
        b"\r\n",
        b"HTTP/1.1 20\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb",
        b"HTTP/1.1 200 OK\r\nX: \x00",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * LIMIT,
    ],
)
def test_what_cannot_become_an_answer_is_refused_at_once(beginning: bytes) -> None:
    refuse(beginning)


def test_an_unfinished_head_stays_in_the_buffer() -> None:
    message = answer(b"X: y")

    for end in range(len(message)):
        buffer = bytearray(message[:end])

        assert read_response_head(buffer, LIMIT, method="GET") is None
        assert bytes(buffer) == message[:end]


# --- writing it again


def test_hop_by_hop_fields_stay_here_and_the_rest_keeps_order_and_case() -> None:
    head = read(
        answer(
            b"date: now",
            b"Connection: X-Hop, close",
            b"X-Hop: 1",
            b"Keep-Alive: timeout=5",
            b"Proxy-Authenticate: Basic",
            b"Alt-Svc: h3",
            b"transfer-encoding: CHUNKED",
            b"Set-Cookie: a",
            b"Set-Cookie: b",
            b"Upgrade: h2",
            start=b"HTTP/1.0 200".replace(b"1.0", b"1.1"),
        )
    )

    emitted = emit_response_head(
        head,
        framing=Framing.CHUNKED,
        keep_alive=True,
        drop=frozenset({b"alt-svc"}),
        extra=[(b"X-Claude-Proxy-Reason", b"none")],
    )

    assert emitted == answer(
        b"date: now",
        b"transfer-encoding: chunked",
        b"Set-Cookie: a",
        b"Set-Cookie: b",
        b"X-Claude-Proxy-Reason: none",
        start=b"HTTP/1.1 200 ",
    )


@pytest.mark.parametrize(
    ("minor", "keep_alive", "connection"),
    [
        (1, True, []),
        (1, False, [b"Connection: close"]),
        (0, True, [b"Connection: keep-alive"]),
        (0, False, [b"Connection: close"]),
    ],
)
def test_each_client_gets_the_connection_field_of_its_version(
    minor: int, connection: list[bytes], *, keep_alive: bool
) -> None:
    head = read(answer(b"Content-Length: 5"))

    emitted = emit_response_head(head, framing=Framing.LENGTH, keep_alive=keep_alive, minor=minor)

    assert emitted == answer(b"Content-Length: 5", *connection)


def test_chunks_become_a_close_for_http_1_0() -> None:
    head = read(answer(b"Transfer-Encoding: chunked", b"X: y"))

    emitted = emit_response_head(head, framing=Framing.CLOSE, keep_alive=False, minor=0)

    assert emitted == answer(b"X: y", b"Connection: close")


def test_a_close_becomes_chunks_for_http_1_1() -> None:
    head = read(answer(b"X: y", start=b"HTTP/1.0 200 OK"))

    emitted = emit_response_head(head, framing=Framing.CHUNKED, keep_alive=True)

    assert emitted == answer(b"X: y", b"Transfer-Encoding: chunked")


@pytest.mark.parametrize(
    ("start", "method"), [(b"HTTP/1.1 200 OK", "HEAD"), (b"HTTP/1.1 304 Not Modified", "GET")]
)
@pytest.mark.parametrize(
    ("sent", "goes_on"),
    [([b"content-length: 5"], [b"content-length: 5"]), ([b"Transfer-Encoding: chunked"], [])],
)
def test_the_length_of_content_that_is_not_sent_is_forwarded(
    start: bytes, method: str, sent: list[bytes], goes_on: list[bytes]
) -> None:
    head = read(answer(*sent, start=start), method)

    emitted = emit_response_head(head, framing=Framing.NONE, keep_alive=True)

    assert emitted == answer(*goes_on, start=start)


def test_204_and_interim_responses_are_forwarded_without_framing() -> None:
    empty = read(answer(b"Content-Length: 0", start=b"HTTP/1.1 204 No Content"))
    interim = read(answer(b"Link: </a>", b"Connection: close", start=b"HTTP/1.1 103 Early Hints"))

    assert emit_response_head(empty, framing=Framing.NONE, keep_alive=True) == answer(
        start=b"HTTP/1.1 204 No Content"
    )
    assert emit_response_head(interim, framing=Framing.NONE, keep_alive=False) == answer(
        b"Link: </a>", start=b"HTTP/1.1 103 Early Hints"
    )


# --- properties

NASTY = st.sampled_from([b"\r\n", b"\r", b"\n", b" ", b":", b"\x00", b"HTTP/1.1", b" 200"])
SOUP = st.lists(st.one_of(NASTY, st.binary(max_size=6)), max_size=30).map(b"".join)


def outcome_of(message: bytes, cut: int) -> tuple[ResponseHead | str | None, bytes]:
    """Read a message at its cut and then after each byte; return the head and what is left."""
    buffer = bytearray(message[:cut])
    try:
        head = read_response_head(buffer, LIMIT, method="GET")
        for byte in message[cut:]:
            buffer.append(byte)
            head = head or read_response_head(buffer, LIMIT, method="GET")
    except BadMessage as error:
        return str(error.status), b""
    return head, bytes(buffer)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(SOUP, st.integers(0, 60))
def test_any_bytes_in_any_pieces_are_read_or_refused_alike(soup: bytes, cut: int) -> None:
    for message in (soup, answer(b"X: " + soup) + b"rest", b"HTTP/1.1 200 OK\r\n" + soup):
        assert outcome_of(message, cut) == outcome_of(message, len(message))
