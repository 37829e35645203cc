"""The laws of HTTP/2 frames: whole, one at a time, and never larger than was offered."""

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.proxy.layers.http2_frames import (
    CONTINUATION,
    DATA,
    HEADERS,
    MAX_FRAME,
    PING,
    Frame,
    FrameReader,
    Http2Error,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def reader(*, server: bool = False) -> FrameReader:
    return FrameReader(server=server, block_limit=1000)


def frames_of(reader: FrameReader) -> list[Frame]:
    return list(iter(reader.next, None))


def test_frames_come_one_by_one_and_as_they_were_sent() -> None:
    sent = [DataFrame(3, data=b"abc").serialize(), PingFrame(0, b"12345678").serialize()]
    read = reader()
    read.feed(b"".join(sent))

    frames = frames_of(read)

    assert [(frame.kind, frame.stream, frame.size) for frame in frames] == [
        (DATA, 3, 3),
        (PING, 0, 8),
    ]
    assert [frame.raw for frame in frames] == sent
    assert read.waiting == 0


@given(st.integers(1, 30))
def test_how_the_bytes_were_split_makes_no_difference(size: int) -> None:
    sent = PREFACE + DataFrame(1, data=b"abc").serialize() + PingFrame(0, b"12345678").serialize()
    read, frames = reader(server=True), []
    for start in range(0, len(sent), size):
        read.feed(sent[start : start + size])
        frames += frames_of(read)

    assert b"".join(frame.raw for frame in frames) == sent
    assert [frame.kind for frame in frames] == [-1, DATA, PING]


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/1"])
def test_what_begins_otherwise_is_refused_at_once(begin: bytes) -> None:
    read = reader(server=True)
    read.feed(begin)

    with pytest.raises(Http2Error) as caught:
        read.next()

    assert caught.value.code == ErrorCodes.PROTOCOL_ERROR


def test_a_frame_that_is_too_large_is_refused_by_its_header() -> None:
    read = reader()
    read.feed((MAX_FRAME + 1).to_bytes(3) + bytes(6))

    with pytest.raises(Http2Error) as caught:
        read.next()

    assert caught.value.code == ErrorCodes.FRAME_SIZE_ERROR


def test_a_header_block_is_bounded_over_all_its_frames() -> None:
    read = reader()
    part = ContinuationFrame(1, data=bytes(400)).serialize()
    read.feed(HeadersFrame(1, data=bytes(400)).serialize() + part * 2)
    kinds = [read.next(), read.next()]

    with pytest.raises(Http2Error) as caught:
        read.next()

    assert [frame.kind for frame in kinds if frame] == [HEADERS, CONTINUATION]
    assert caught.value.code == ErrorCodes.ENHANCE_YOUR_CALM


def test_each_header_block_is_counted_anew() -> None:
    read = reader()
    read.feed(HeadersFrame(1, data=bytes(600)).serialize() * 5)

    assert len(frames_of(read)) == 5
