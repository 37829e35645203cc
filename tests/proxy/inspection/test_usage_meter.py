"""The usage is read from a response on its way, which is not changed."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.events import Usage
from claude_proxy.proxy.inspection.usage_meter import UsageMeter, readable_encodings, usage_of

STREAM = (b"Content-Type", b"text/event-stream; charset=utf-8")
JSON = (b"content-type", b"application/json")
MODEL = "claude-opus-5"
BEGINNING = {
    "input_tokens": 12,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 4000,
    "output_tokens": 1,
}
WHOLE = Usage(MODEL, tokens_in=12, tokens_out=77, cache_written=300, cache_read=4000)


def event(kind: str, **others: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **others})}\n\n".encode()


START = event("message_start", message={"id": "a", "model": MODEL, "usage": BEGINNING})
TEXT = event("content_block_delta", index=0, delta={"type": "text_delta", "text": '"usage"'})
PING = event("ping")
EVENTS = b"".join(
    (
        START,
        PING,
        TEXT,
        event("message_delta", delta={}, usage={"output_tokens": 40}),
        event("message_delta", delta={}, usage={"output_tokens": 77}),
        event("message_stop"),
    )
)
ANSWER = json.dumps(
    {"id": "a", "model": MODEL, "content": [], "usage": {**BEGINNING, "output_tokens": 77}}
).encode()


def bare(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


CODINGS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "none": (b"", bytes),
    "identity": (b"identity", bytes),
    "gzip": (b"gzip", gzip.compress),
    "x-gzip": (b"X-GZIP", gzip.compress),
    "several gzip members": (
        b"gzip",
        lambda text: gzip.compress(text[:9]) + gzip.compress(text[9:]),
    ),
    "deflate": (b"deflate", zlib.compress),
    "bare deflate": (b"deflate", bare),
}


def metered(content: bytes, *fields: tuple[bytes, bytes], step: int = 1 << 20) -> UsageMeter:
    meter = UsageMeter()
    meter.head(200, fields)
    for at in range(0, len(content), step):
        assert meter.feed(content[at : at + step]) == content[at : at + step]
    assert meter.finish() == b""
    return meter


@pytest.mark.parametrize(("coding", "pack"), CODINGS.values(), ids=CODINGS)
@pytest.mark.parametrize(("kind", "content"), [(STREAM, EVENTS), (JSON, ANSWER)])
@pytest.mark.parametrize("step", [2, 7, 1 << 20])
def test_the_usage_is_read_however_the_answer_comes(
    kind: tuple[bytes, bytes],
    content: bytes,
    coding: bytes,
    pack: Callable[[bytes], bytes],
    step: int,
) -> None:
    fields = (kind, (b"Content-Encoding", coding)) if coding else (kind,)

    assert metered(pack(content), *fields, step=step).usage == WHOLE


def test_lines_may_end_with_crlf() -> None:
    assert metered(EVENTS.replace(b"\n", b"\r\n"), STREAM).usage == WHOLE


def test_a_stream_that_breaks_off_has_cost_what_it_said_so_far() -> None:
    meter = UsageMeter()
    meter.head(200, (STREAM,))

    meter.feed(START + TEXT)

    assert meter.usage == Usage(
        MODEL, tokens_in=12, tokens_out=1, cache_written=300, cache_read=4000
    )


def test_an_interim_head_and_trailers_are_not_the_answer() -> None:
    meter = UsageMeter()
    meter.head(103, ((b"Link", b"</a>"),))
    meter.head(200, (JSON,))
    meter.feed(ANSWER)
    meter.head(200, ((b"Content-Type", b"text/plain"),))
    meter.finish()

    assert meter.usage == WHOLE


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        (ANSWER, ()),
        (ANSWER, ((b"content-type", b"text/html"),)),
        (ANSWER, (JSON, (b"content-encoding", b"br"))),
        (ANSWER, (JSON, (b"content-encoding", b"gzip"))),
        (gzip.compress(ANSWER), (JSON, (b"content-encoding", b"gzip, gzip"))),
        (gzip.compress(ANSWER) + b"no gzip", (JSON, (b"content-encoding", b"gzip"))),
        (b"", (JSON,)),
        (b"[]", (JSON,)),
        (b"{", (JSON,)),
        (b"[" * 100_000, (JSON,)),
        (b'{"type":"error","error":{}}', (JSON,)),
        (b'{"usage":7}', (JSON,)),
        (b'{"input_tokens":7}', (JSON,)),
        (b'data: {"type":"message_start","message":7,"usage":{}}\n\n', (STREAM,)),
        (b'data: {"type":"message_stop","usage":{"output_tokens":7}}\n\n', (STREAM,)),
        (b'data: "usage"\n\ndata: {"usage"\n\n', (STREAM,)),
    ],
)
def test_a_response_without_usage_has_none(
    content: bytes, fields: tuple[tuple[bytes, bytes], ...]
) -> None:
    assert metered(content, *fields).usage is None


@pytest.mark.parametrize("odd", [True, -1, 1.5, "7", None, [], 1 << 60])
def test_what_is_no_count_is_not_counted(odd: Any) -> None:
    answer = json.dumps({"model": odd, "usage": {"input_tokens": odd, "output_tokens": 3}})

    usage = usage_of(answer.encode())

    assert usage == Usage(model="7" if odd == "7" else "", tokens_out=3)


def test_a_long_name_is_cut() -> None:
    usage = usage_of(json.dumps({"model": "m" * 9999, "usage": {}}).encode())

    assert usage is not None
    assert len(usage.model) < 200


def test_a_line_too_long_is_skipped_and_the_next_one_read() -> None:
    long = event("content_block_delta", delta={"text": "x" * 1_000_000})

    assert metered(START + long + EVENTS, STREAM, step=50_000).usage == WHOLE


def test_memory_stays_bounded_for_any_content() -> None:
    piece = b"x" * (1 << 20)
    meter = UsageMeter()
    meter.head(200, (STREAM,))
    for _ in range(20):
        assert meter.feed(piece) == piece
    assert meter.usage is None
    line = meter._reader._line if meter._reader else b""  # type: ignore[union-attr]
    assert len(line) < 1 << 20

    assert metered(b'{"usage":{},"a":"' + piece * 8 + b'"}', JSON).usage is None


def test_a_bomb_passes_and_is_not_unpacked_to_its_end() -> None:
    bomb = zlib.compress(b"\n" * (80 << 20), 9)
    meter = metered(bomb, STREAM, (b"content-encoding", b"deflate"))

    meter.feed(zlib.compress(EVENTS))

    assert meter.usage is None


def test_a_piece_that_fills_the_room_is_followed_by_its_rest() -> None:
    answer = ANSWER.replace(b'"content": []', b'"content": "' + b"a" * (3 << 16) + b'"')

    assert metered(gzip.compress(answer), JSON, (b"content-encoding", b"gzip")).usage == WHOLE


fields = st.lists(
    st.tuples(
        st.sampled_from((b"content-type", b"Content-Encoding", b"x")),
        st.sampled_from((b"text/event-stream", b"application/json", b"gzip", b"deflate", b"br"))
        | st.binary(max_size=6),
    ),
    max_size=3,
)
pieces = st.lists(
    st.sampled_from((START, TEXT, EVENTS, ANSWER, gzip.compress(ANSWER), b'data: {"usage":', b"\n"))
    | st.binary(max_size=20),
    max_size=8,
)


@given(st.sampled_from((100, 200, 204, 529)), fields, pieces)
def test_any_content_is_forwarded_unchanged(
    status: int, head: list[tuple[bytes, bytes]], content: list[bytes]
) -> None:
    meter = UsageMeter()
    meter.head(status, head)

    passed = b"".join(map(meter.feed, content)) + meter.finish()

    assert passed == b"".join(content)


@pytest.mark.parametrize(
    ("offered", "asked"),
    [
        ((b"gzip, deflate, br, zstd",), b"gzip, deflate"),
        ((b"br;q=1.0, GZIP;q=0.5, *;q=0.1",), b"GZIP;q=0.5"),
        ((b"zstd", b"gzip"), b"gzip"),
        ((b"br",), b"identity"),
        ((b"*",), b"identity"),
        ((b"gzip, identity;q=0",), None),
        ((b"deflate",), None),
        ((), None),
    ],
)
def test_an_answer_is_asked_for_in_what_can_be_read(
    offered: tuple[bytes, ...], asked: bytes | None
) -> None:
    fields = [(b"Accept", b"br"), *((b"Accept-Encoding", value) for value in offered)]

    assert readable_encodings(fields) == asked


# --- what a request used that had tokens reserved

RESERVED = Usage("", tokens_in=50, tokens_out=1000)
DELTA = event("message_delta", delta={}, usage={"output_tokens": 77})


def words(count: int) -> bytes:
    delta = {"type": "text_delta", "text": "word "}
    return count * event("content_block_delta", index=0, delta=delta)


def settled(content: bytes, *fields: tuple[bytes, bytes], status: int = 200) -> Usage | None:
    meter = UsageMeter()
    meter.head(status, fields)
    for at in range(0, len(content), 64):
        meter.feed(content[at : at + 64])
    return meter.settled(RESERVED)


def test_a_response_that_reports_its_usage_is_settled_by_it() -> None:
    assert settled(START + words(10) + DELTA + event("message_stop"), STREAM) == WHOLE
    assert metered(ANSWER, JSON).settled(RESERVED) == WHOLE


def test_a_stream_that_is_broken_off_is_settled_by_what_went_by() -> None:
    usage = settled(START + words(500), STREAM)

    assert usage is not None
    assert usage.tokens_in == 12  # as it said
    assert 500 <= usage.tokens_out <= 20 * 500


def test_a_long_text_in_few_events_is_settled_by_its_length() -> None:
    delta = {"type": "text_delta", "text": "word " * 100_000}
    usage = settled(START + event("content_block_delta", index=0, delta=delta), STREAM)

    assert usage is not None
    assert usage.tokens_out >= 100_000


def test_what_follows_a_report_of_the_usage_counts_as_well() -> None:
    usage = settled(START + DELTA + words(500), STREAM)

    assert usage is not None
    assert usage.tokens_out >= 500


def test_a_report_is_never_lowered_by_an_estimate() -> None:
    usage = settled(START.replace(b'"output_tokens": 1', b'"output_tokens": 9999'), STREAM)

    assert usage is not None
    assert usage.tokens_out == 9999


@pytest.mark.parametrize("step", range(1, len(ANSWER), 40))
def test_an_answer_in_one_piece_was_made_whole_however_little_of_it_came(step: int) -> None:
    usage = settled(ANSWER[:step], JSON)

    assert usage is not None
    assert (usage.tokens_in, usage.tokens_out) == (50, 1000)


def test_a_stream_of_which_nothing_can_be_read_is_settled_upward() -> None:
    usage = settled(b"\xff" * 5000, STREAM, (b"Content-Encoding", b"gzip"))

    assert usage is not None
    assert usage.tokens_in == 50
    assert usage.tokens_out >= 2000


def test_a_request_without_a_response_used_all_that_it_could() -> None:
    meter = UsageMeter()
    meter.head(103, ())

    assert meter.settled(RESERVED) == RESERVED


@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
def test_an_error_used_nothing(status: int) -> None:
    assert settled(b'{"type": "error"}', JSON, status=status) is None
