"""A relay asks the proxy for a tunnel, and passes on nothing before a 2xx answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.sandbox.relay.tunnel_opening import TunnelOpening, TunnelRefusedError

GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def refusal_of(answer: bytes) -> str | None:
    try:
        TunnelOpening("db.corp:5432").feed(answer)
    except TunnelRefusedError as refused:
        return str(refused)
    return None


def test_the_request_names_the_target_twice_as_a_proxy_demands_it() -> None:
    opening = TunnelOpening("db.corp:5432")

    assert opening.request == b"CONNECT db.corp:5432 HTTP/1.1\r\nHost: db.corp:5432\r\n\r\n"


def test_what_follows_the_answer_belongs_to_the_client() -> None:
    assert (
        TunnelOpening("db.corp:3306").feed(GRANTED + b"J\x00\x00\x00\n8.0") == b"J\x00\x00\x00\n8.0"
    )


def test_an_answer_in_single_bytes_is_the_same_answer() -> None:
    opening = TunnelOpening("db.corp:3306")

    answers = [opening.feed(bytes((byte,))) for byte in GRANTED]

    assert answers == [None] * (len(GRANTED) - 1) + [b""]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 403 Denied\r\nX-Claude-Proxy-Reason: no-rule\r\n\r\n", "no-rule"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "HTTP/1.1 502 Bad Gateway"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 2000 OK"),
        (b"HTTP/1.1\r\n\r\n", "HTTP/1.1"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "SSH-2.0-OpenSSH"),
        (b"\r\n\r\n", "no reason was given"),
        (b"HTTP/1.1 403 \x1b[2J\r\n\r\n", "HTTP/1.1 403 [2J"),
        (b"x" * 20_000, "its answer has no end"),
    ],
)
def test_any_other_answer_is_a_refusal_whose_reason_can_be_printed(
    answer: bytes, reason: str
) -> None:
    assert refusal_of(answer) == reason


@given(st.binary(max_size=200))
def test_every_answer_is_read_or_refused(answer: bytes) -> None:
    refusal = refusal_of(answer)

    assert refusal is None or refusal.isprintable()
