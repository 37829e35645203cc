"""A client learns in its own protocol that the proxy behind a relay is unreachable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.sandbox.relay.unavailable import HEAD_LIMIT, Unavailable

GET = b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"
CONNECT = b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n"
FAILURE = b"\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00"
BY_NAME = b"\x05\x01\x00\x03\x06a.test\x01\xbb"
BY_IPV4 = b"\x05\x01\x00\x01\x01\x02\x03\x04\x01\xbb"
BY_IPV6 = b"\x05\x01\x00\x04" + bytes(16) + b"\x01\xbb"

SENT = st.one_of(
    st.binary(max_size=100),
    st.binary(max_size=40).map(lambda data: b"\x05" + data),
    st.binary(max_size=40).map(lambda data: b"GET / HTTP/1.1\r\n" + data),
    st.sampled_from([GET, CONNECT, b"\x05\x01\x00" + BY_NAME, b"\x05\x02\x01\x02\x01\x01u\x01p"]),
)


def answer(data: bytes) -> tuple[bytes, bool]:
    unavailable = Unavailable()
    return unavailable.feed(data), unavailable.over


@pytest.mark.parametrize("request_", [GET, CONNECT, GET.replace(b"\r\n", b"\n"), GET + b"body"])
def test_http_gets_a_502_with_the_reason(request_: bytes) -> None:
    said, over = answer(request_)

    head, _, body = said.decode("ascii").partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 502 Bad Gateway (proxy-unreachable)\r\n")
    assert "\r\nX-Claude-Proxy-Reason: proxy-unreachable\r\n" in head
    assert f"\r\nContent-Length: {len(body)}\r\n" in head
    assert head.endswith("\r\nConnection: close")
    assert body.startswith("Failed by claude-proxy: ")
    assert body.count("\n") == 1
    assert over


def test_the_answer_to_head_has_no_body() -> None:
    said, over = answer(GET.replace(b"GET", b"HEAD"))

    assert said.endswith(b"\r\n\r\n")
    assert over


@pytest.mark.parametrize("request_", [BY_NAME, BY_IPV4, BY_IPV6])
def test_socks_gets_its_method_and_then_a_general_failure(request_: bytes) -> None:
    unavailable = Unavailable()

    assert unavailable.feed(b"\x05\x02\x00\x02") == b"\x05\x00"
    assert unavailable.feed(request_[:-1]) == b""
    assert unavailable.feed(request_[-1:]) == FAILURE
    assert unavailable.over


def test_pipelined_socks_messages_are_all_answered() -> None:
    assert answer(b"\x05\x01\x00" + BY_NAME) == (b"\x05\x00" + FAILURE, True)


def test_a_socks_client_that_requires_a_password_gets_a_general_failure_too() -> None:
    unavailable = Unavailable()

    assert unavailable.feed(b"\x05\x01\x02") == b"\x05\x02"
    assert unavailable.feed(b"\x01\x04user\x06secret") == b"\x01\x00"
    assert unavailable.feed(BY_NAME) == FAILURE


def test_a_socks_client_without_a_supported_method_is_refused() -> None:
    assert answer(b"\x05\x01\x01") == (b"\x05\xff", True)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01",
        b"\x04\x01",
        b"\x00",
        b"SSH-2.0-x\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"get /\n",
    ],
)
def test_a_client_of_another_protocol_gets_nothing(data: bytes) -> None:
    assert answer(data) == (b"", True)


@pytest.mark.parametrize("data", [b"", b"G", GET[:-1], b"\x05", b"\x05\x02\x00"])
def test_nothing_is_sent_before_the_client_sends(data: bytes) -> None:
    assert answer(data) == (b"", False)


def test_an_endless_head_is_answered_at_the_limit() -> None:
    said, over = answer(b"GET / HTTP/1.1\r\nX: ".ljust(HEAD_LIMIT, b"x"))

    assert said.startswith(b"HTTP/1.1 502 ")
    assert over


@given(data=SENT | st.tuples(SENT, SENT).map(b"".join))
def test_the_response_does_not_depend_on_how_the_bytes_are_split(data: bytes) -> None:
    pieces = Unavailable()

    said = b"".join(pieces.feed(data[at : at + 1]) for at in range(len(data)))

    assert (said, pieces.over) == answer(data)


@given(data=st.binary(max_size=50))
def test_nothing_is_sent_after_the_response(data: bytes) -> None:
    unavailable = Unavailable()
    unavailable.feed(GET)

    assert unavailable.feed(data) == b""
