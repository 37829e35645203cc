"""A response's fields are read as RFC 9112 lets a recipient repair them, or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.wire.http1.head import MAX_FIELDS, BadMessage, read_fields
from claude_proxy.wire.http1.response_fields import (
    read_response_fields,
    refuse_invalid_response_bytes,
)


@pytest.mark.parametrize(
    ("block", "field"),
    [
        (b"X-A : b\r\n", (b"X-A", b"b")),
        (b"X-A\t \t:b\r\n", (b"X-A", b"b")),
        (b"X-A: b \t\r\n", (b"X-A", b"b")),
        (b"X-A:\r\n", (b"X-A", b"")),
        (b"X-A: \r\n", (b"X-A", b"")),
        (b"X-A: b\n", (b"X-A", b"b")),
        (b"X-A: b\r\n c\r\n", (b"X-A", b"b c")),
        (b"X-A: b  \r\n\t  c \r\n \td\r\n", (b"X-A", b"b c d")),
        (b"X-A:\r\n b\r\n", (b"X-A", b"b")),
        (b"X-A: b\r\n \r\n", (b"X-A", b"b")),
        (b"X-A: b\n c\n", (b"X-A", b"b c")),
        (b"Transfer-Encoding : chunked \r\n", (b"Transfer-Encoding", b"chunked")),
    ],
)
def test_what_real_servers_send_is_repaired(block: bytes, field: tuple[bytes, bytes]) -> None:
    around = [(b"A", b"1"), (b"Z", b"2")]

    assert read_response_fields(b"A: 1\r\n" + block + b"Z:2\r\n") == [around[0], field, around[1]]


@pytest.mark.parametrize(
    "block",
    [
        b" X: a\r\n",
        b"\tX: a\r\n",
        b"X\r\n",
        b": a\r\n",
        b" : a\r\n",
        b"X Y: a\r\n",
        b"X\xc3\xa4: a\r\n",
        b"X: a\rb\r\n",
        b"X: a\r\r\n",
        b"X: a\r\n b\rc\r\n",
        b"X: \x00\r\n",
        b"X: \x01\r\n",
        b"X: a\r\n \x0b\r\n",
    ],
)
def test_what_may_not_be_repaired_is_refused(block: bytes) -> None:
    with pytest.raises(BadMessage) as refused:
        read_response_fields(block)

    assert refused.value.status == 502


def test_too_many_lines_are_refused() -> None:
    assert len(read_response_fields(b"A: b\r\n" * MAX_FIELDS)) == MAX_FIELDS
    for block in (b"A: b\r\n" * (MAX_FIELDS + 1), b"A: b\r\n" + b" c\n" * MAX_FIELDS):
        with pytest.raises(BadMessage):
            read_response_fields(block)


@given(st.lists(st.sampled_from([b"A: b", b"A :b ", b"\r\n", b"\n", b" c", b"\r"]) | st.binary()))
def test_what_a_request_may_send_is_read_alike(parts: list[bytes]) -> None:
    block = b"".join(parts)
    try:
        strict = read_fields(block)
    except BadMessage:
        strict = None
    try:
        fields = read_response_fields(block)
    except BadMessage:
        assert strict is None
        return
    assert all(b"\r" not in value and b"\n" not in value for _, value in fields)
    if strict is not None:
        assert [(name, value.rstrip(b" \t")) for name, value in strict] == fields


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\nX: a\rb", b"HTTP/1.1 200\r\nX\x00"])
def test_what_no_head_may_hold_is_refused_before_its_end(part: bytes) -> None:
    with pytest.raises(BadMessage):
        refuse_invalid_response_bytes(part)


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\nX: a\r", b"HTTP/1.1 200 OK\nX: a"])
def test_a_head_that_is_still_coming_is_not_refused(part: bytes) -> None:
    refuse_invalid_response_bytes(part)
