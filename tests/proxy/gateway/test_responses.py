"""In strict mode the provider speaks by its status alone; a success is passed on as it came."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.proxy.gateway import responses
from claude_proxy.proxy.gateway.responses import GatewayResponse, normalised

CANARY = b"canary-of-the-provider"
TELLING = [
    (b"Content-Type", b"application/json"),
    (b"request-id", CANARY),
    (b"retry-after", b"17"),
    (b"anthropic-ratelimit-requests-remaining", CANARY),
    (b"x-should-retry", CANARY),
    (b"set-cookie", CANARY),
]
_SPLIT = b"\r\n\r\n"

TABLE = [
    (400, "invalid_request", "The request was malformed or missing required parameters"),
    (401, "authentication_error", "Authentication failed"),
    (403, "permission_denied", "Access to the requested resource is forbidden"),
    (404, "not_found", "The requested resource was not found"),
    (429, "rate_limited", "Rate limit exceeded"),
    (500, "upstream_error", "The provider encountered an internal error"),
    (502, "upstream_error", "The provider is temporarily unavailable"),
    (503, "upstream_error", "The provider is temporarily unavailable"),
    (529, "upstream_error", "The provider is temporarily overloaded"),
    (413, "client_error", "The request could not be processed"),
    (418, "client_error", "The request could not be processed"),
    (504, "upstream_error", "The provider encountered an error"),
    (599, "upstream_error", "The provider encountered an error"),
]


def read(reply: GatewayResponse) -> object:
    return json.loads(reply.content)


@pytest.mark.parametrize(("status", "kind", "message"), TABLE)
def test_an_error_keeps_its_status_and_gets_our_words(status: int, kind: str, message: str) -> None:
    reply = normalised(status, TELLING, b'{"error":{"message":"' + CANARY + b'"}}')

    assert reply.status == status
    assert read(reply) == {"type": "error", "error": {"type": kind, "message": message}}


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 100, 101, 600, 999])
def test_a_redirect_is_no_answer_of_a_provider(status: int) -> None:
    reply = normalised(status, [(b"Location", b"https://evil.test/" + CANARY)], CANARY)

    assert reply.status == 502
    assert read(reply) == {
        "type": "error",
        "error": {"type": "upstream_error", "message": "Unexpected provider response"},
    }


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_success_in_json_is_passed_on_word_for_word(status: int) -> None:
    content = b'{ "content" : [ "caf\xc3\xa9" , 1.0e1 ],  "a":1,"a":2}\n'

    reply = normalised(status, TELLING, content)

    assert (reply.status, reply.content) == (status, content)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b'{"a":', b"event: ping\n\n", b'{"a":"\xff"}', b"[" * 100_000]
)
def test_a_success_that_is_no_json_is_an_error_of_the_proxys(content: bytes) -> None:
    reply = normalised(200, TELLING, content)

    assert reply.status == 502
    assert read(reply) == {
        "type": "error",
        "error": {"type": "proxy_error", "message": "Non-JSON response from provider"},
    }


def test_a_success_that_is_compressed_is_an_error_of_the_proxys() -> None:
    reply = normalised(200, [(b"Content-Encoding", b"gzip")], b'{"a":1}')

    assert reply.status == 502


@pytest.mark.parametrize("status", [200, 302, 400, 429, 500, 529])
def test_no_field_of_the_provider_comes_through(status: int) -> None:
    out = normalised(status, TELLING, b"{}").http1(head_only=False, close=False)

    names = {
        line.partition(b":")[0].lower() for line in out.partition(_SPLIT)[0].split(b"\r\n")[1:]
    }
    assert names == {b"content-type", b"content-length", b"cache-control", b"connection"}
    assert CANARY not in out


def test_retry_after_can_be_kept() -> None:
    reply = normalised(429, TELLING, b"", keeps_retry_after=True)

    assert (b"Retry-After", b"17") in reply.fields


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b"retry-after", b"Wed, 21 Oct 2026 07:28:00 GMT")],
        [(b"retry-after", CANARY)],
        [(b"retry-after", b"1\xb2")],
        [(b"retry-after", b"1"), (b"Retry-After", b"2")],
    ],
)
def test_only_plain_seconds_are_kept(fields: list[tuple[bytes, bytes]]) -> None:
    reply = normalised(429, fields, b"", keeps_retry_after=True)

    assert not [name for name, _ in reply.fields if name == b"Retry-After"]


@given(
    st.integers(100, 999).filter(lambda status: not 200 <= status <= 299),
    st.lists(st.tuples(st.binary(min_size=1, max_size=12), st.binary(min_size=1, max_size=12))),
    st.binary(max_size=200),
)
def test_not_a_byte_of_an_error_comes_through(
    status: int, fields: list[tuple[bytes, bytes]], content: bytes
) -> None:
    """What is answered depends on the status alone, so nothing else can be in it."""
    plain = normalised(status, [], b"")

    assert normalised(status, fields, content) == plain
    assert plain.http1(head_only=False, close=True) == normalised(status, fields, content).http1(
        head_only=False, close=True
    )


def test_the_failures_of_strict_mode_are_the_seeds() -> None:
    assert (responses.failed().status, read(responses.failed())) == (
        502,
        {"type": "error", "error": {"type": "proxy_error", "message": "Upstream request failed"}},
    )
    assert (responses.fault().status, read(responses.fault())) == (
        500,
        {"detail": "Internal server error"},
    )


def test_an_answer_to_head_has_the_length_and_not_the_content() -> None:
    out = responses.json_response(200, {"a": 1}).http1(head_only=True, close=True)

    assert out.endswith(_SPLIT)
    assert b"Content-Length: 7\r\n" in out


def test_what_an_answer_holds_is_not_shown_by_accident() -> None:
    assert "canary" not in repr(GatewayResponse(200, CANARY))
