"""A field is read in one way or refused, and no head shows a field in its repr."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.wire.http1.head import (
    MAX_FIELDS,
    BadMessage,
    RequestHead,
    ResponseHead,
    TargetForm,
    framing_fields,
    items_of,
    length_of,
    protocols_of,
    read_fields,
    refuse_invalid_bytes,
)


def test_names_stay_as_sent_and_values_are_trimmed() -> None:
    block = b"HoSt:a.test\r\nX-A: \t b c \t\r\nEmpty:\r\n"

    assert read_fields(block) == [(b"HoSt", b"a.test"), (b"X-A", b"b c"), (b"Empty", b"")]


@pytest.mark.parametrize(
    "line",
    [b"A : b", b" A: b", b"A b", b": b", b"A: b\n", b"A: \x00", b"A: b\rc", b"\xc3\xa4: b"],
)
def test_a_malformed_line_refuses_the_head(line: bytes) -> None:
    with pytest.raises(BadMessage) as refused:
        read_fields(b"Ok: 1\r\n" + line + b"\r\n")

    assert refused.value.status == 400


def test_a_coding_with_white_space_behind_it_stays_another_coding() -> None:
    assert read_fields(b"Transfer-Encoding: chunked \r\n") == [(b"Transfer-Encoding", b"chunked ")]


def test_too_many_fields_are_refused() -> None:
    assert len(read_fields(b"A: b\r\n" * MAX_FIELDS)) == MAX_FIELDS
    with pytest.raises(BadMessage) as refused:
        read_fields(b"A: b\r\n" * (MAX_FIELDS + 1))

    assert refused.value.status == 431


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(block: bytes) -> None:
    try:
        fields = read_fields(block)
    except BadMessage:
        return
    assert len(fields) == block.count(b"\n")


@pytest.mark.parametrize("part", [b"GET / HTTP/1.1\n", b"GET /\rx", b"GE\x00T"])
def test_what_no_head_may_hold_is_refused_before_its_end(part: bytes) -> None:
    with pytest.raises(BadMessage):
        refuse_invalid_bytes(part, 400)


def test_a_head_that_is_still_coming_is_not_refused() -> None:
    refuse_invalid_bytes(b"GET / HTTP/1.1\r\nHost: a.te", 400)
    refuse_invalid_bytes(b"GET / HTTP/1.1\r", 400)


@pytest.mark.parametrize("value", [b"", b"+1", b"-1", b"1_0", b"0x1", b" 1", b"1" * 20])
def test_a_length_is_digits_alone(value: bytes) -> None:
    assert length_of(b"0042", 400) == 42
    with pytest.raises(BadMessage):
        length_of(value, 400)


def test_lists_are_split_and_empty_items_are_left_out() -> None:
    assert items_of([b"Close, ,x", b", Y\t"]) == [b"close", b"x", b"y"]


def test_a_malformed_protocol_is_refused() -> None:
    assert protocols_of([b"WebSocket, h2/1"], 400) == ("websocket", "h2/1")
    with pytest.raises(BadMessage):
        protocols_of([b"web socket"], 400)


def test_only_what_frames_a_message_or_keeps_its_connection_is_gathered() -> None:
    fields = [(b"HOST", b"a"), (b"X", b"b"), (b"host", b"c")]

    assert framing_fields(fields) == {b"host": [b"a", b"c"]}


def test_no_repr_shows_a_field() -> None:
    fields = [(b"Authorization", b"secret")]
    request = RequestHead(1, fields, method="GET", target="/?secret", form=TargetForm.ORIGIN)

    assert "secret" not in repr(request) + repr(ResponseHead(1, fields, status=200))


def test_a_field_is_found_in_any_case() -> None:
    head = ResponseHead(1, [(b"X-A", b"1"), (b"x-a", b"2")], status=200)

    assert (head.get(b"x-A"), head.get_all(b"X-a"), head.get(b"B")) == (b"1", [b"1", b"2"], None)
