"""A call reserves what it may use, and more rather than less."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.proxy.gateway.reservation import most_usage


def body(**more: Any) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 7, "messages": [], **more}).encode()


def test_an_answer_may_be_as_long_as_the_call_says() -> None:
    assert most_usage(body()).tokens_out == 7
    assert most_usage(body(max_tokens=32_000)).tokens_out == 32_000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"[]",
        b'{"model": "m"}',
        body(max_tokens="7"),
        body(max_tokens=True),
        body(max_tokens=-1),
        body(max_tokens=10**30),
        body(system="x" * 2_000_000),
    ],
)
def test_what_is_not_said_counts_as_the_most(content: bytes) -> None:
    assert most_usage(content).tokens_out == 128_000


def test_of_a_limit_that_is_given_twice_the_greater_counts() -> None:
    twice = body().replace(b'"max_tokens": 7', b'"max_tokens": 70000, "max_tokens": 7')

    assert most_usage(twice).tokens_out == 70_000
    assert most_usage(twice.replace(b"70000", b"1")).tokens_out == 7


def test_the_text_of_a_message_is_no_limit() -> None:
    assert most_usage(body(system='"max_tokens": 99999')).tokens_out == 7


def test_a_limit_in_escapes_is_read() -> None:
    escaped = body(max_tokens=50_000).replace(b"max_tokens", rb"max\u005ftokens")

    assert most_usage(escaped).tokens_out == 50_000


def test_what_is_read_is_counted_by_its_length_up_to_a_whole_context() -> None:
    assert most_usage(body(system="word " * 30_000)).tokens_in >= 30_000
    assert most_usage(b"x" * 32_000_000).tokens_in == 1_000_000


def test_a_picture_costs_less_than_its_length() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "QUJD" * 500_000}

    assert 1_600 <= most_usage(body(system=[{"source": source}])).tokens_in < 10_000


@given(st.binary(max_size=300))
def test_any_body_reserves_something(content: bytes) -> None:
    usage = most_usage(content)

    assert usage.tokens_in >= 1
    assert 1 <= usage.tokens_out <= 128_000
