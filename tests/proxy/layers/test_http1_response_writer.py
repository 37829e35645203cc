"""A streaming writer frames a response for its client, and ends none that is not whole."""

import pytest

from claude_proxy.proxy.layers.http1_response_writer import (
    Response,
    StreamingWriter,
    emit_bodiless,
)
from claude_proxy.wire.http1.emit import Framing
from claude_proxy.wire.http1.head import ResponseHead
from claude_proxy.wire.http1.response import read_response_head


def head_of(text: bytes) -> ResponseHead:
    head = read_response_head(bytearray(text), 4096, method="GET")
    assert head is not None
    return head


HINTS = head_of(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
CHUNKED = head_of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


def started(framing: Framing, minor: int = 1) -> StreamingWriter:
    writer = StreamingWriter(minor)
    writer.start(Response(CHUNKED, None, framing, keep_alive=True))
    return writer


def test_a_response_has_begun_with_its_head_and_not_before() -> None:
    writer = StreamingWriter(1)

    assert not writer.begun
    writer.interim(HINTS)
    assert not writer.begun
    writer.start(Response(CHUNKED, None, Framing.CHUNKED, keep_alive=True))
    assert writer.begun


@pytest.mark.parametrize(("minor", "written"), [(0, b""), (1, emit_bodiless(HINTS))])
def test_an_interim_head_is_for_http_1_1_alone(minor: int, written: bytes) -> None:
    assert StreamingWriter(minor).interim(HINTS) == written


def test_content_goes_in_chunks_where_the_body_is_chunked() -> None:
    writer = started(Framing.CHUNKED)

    assert writer.content(b"hi", (), done=False) == b"2\r\nhi\r\n"
    assert writer.content(b"", (), done=False) == b""
    assert writer.content(b"!", (), done=True) == b"1\r\n!\r\n0\r\n\r\n"


def test_trailers_follow_the_last_chunk() -> None:
    assert started(Framing.CHUNKED).content(b"", [(b"X", b"y")], done=True) == b"0\r\nX: y\r\n\r\n"


@pytest.mark.parametrize("framing", [Framing.LENGTH, Framing.CLOSE])
def test_content_goes_as_it_is_where_the_body_is_not_chunked(framing: Framing) -> None:
    writer = started(framing, 0)

    assert writer.content(b"hi", [(b"X", b"y")], done=True) == b"hi"


def test_the_end_adds_nothing() -> None:
    assert started(Framing.CHUNKED).finish(close=True) == b""


def test_no_head_leads_past_the_proxy() -> None:
    head = head_of(b'HTTP/1.1 103 Early Hints\r\nAlt-Svc: h3=":443"\r\nX: y\r\n\r\n')

    assert emit_bodiless(head) == b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n"
