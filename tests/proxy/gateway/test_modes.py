"""Claude mode passes on what it gets; strict mode takes one call and gives no hint."""

import pytest

from claude_proxy.proxy.dialer import DialError
from tests.proxy.gateway.calls import (
    BODY,
    END,
    FAILURES,
    KEY,
    PROMPT,
    STRICT,
    an_answer,
    api_error,
    ask,
    content_of,
    fields_of,
    play,
    status_of,
)


def test_claude_mode_forwards_the_query_the_fields_and_the_body_as_they_are() -> None:
    there = play()
    body = b'{ "model":"asked","stream":true,"tools":[],"of_tomorrow":{"a":[1.0]} }'

    there.stage.says(
        ask(
            "POST",
            "/v1/messages?beta=true",
            "anthropic-beta: a-2025-01-01,b-2025-01-01",
            "x-claude-code-session-id: 5",
            "User-Agent: claude-cli/2",
            "X-Stainless-Lang: js",
            body=body,
        )
    )

    sent = there.stage.upstream.take()
    assert sent.startswith(b"POST /v1/messages?beta=true HTTP/1.1\r\n")
    assert sent.endswith(END + body)
    assert fields_of(sent) | {
        "anthropic-beta": "a-2025-01-01,b-2025-01-01",
        "x-claude-code-session-id": "5",
        "user-agent": "claude-cli/2",
        "x-stainless-lang": "js",
    } == fields_of(sent)


def test_strict_mode_forwards_neither_query_nor_other_fields() -> None:
    there = play(STRICT)

    there.stage.says(
        ask(
            "POST",
            "/v1/messages?beta=true",
            "anthropic-beta: a-2025-01-01",
            "x-claude-code-session-id: 5",
            "User-Agent: curl",
            "Content-Type: text/plain",
        )
    )

    sent = there.stage.upstream.take()
    assert sent.startswith(b"POST /v1/messages HTTP/1.1\r\n")
    assert fields_of(sent) == {
        "host": "127.0.0.1:8080",
        "anthropic-beta": "a-2025-01-01",
        "content-length": str(len(sent.partition(END)[2])),
        "content-type": "application/json",
        "accept": "application/json",
        "anthropic-version": "2023-06-01",
        "x-api-key": KEY,
        "accept-encoding": "identity",
    }


@pytest.mark.parametrize(
    "status", ["400 Bad Request", "429 Slow Down", "500 Oops", "529 Overloaded"]
)
def test_claude_mode_passes_errors_on_unchanged(status: str) -> None:
    there = play()
    there.stage.says(ask())
    body = b'{"type":"error","error":{"type":"of_the_provider","message":"prompt is too long"}}'

    answer = there.stage.answers(
        an_answer(status, body, "request-id: req_1", "retry-after: 7", "x-should-retry: true")
    )

    assert answer.startswith(f"HTTP/1.1 {status}\r\n".encode())
    assert answer.endswith(END + body)
    assert fields_of(answer)["request-id"] == "req_1"
    assert fields_of(answer)["retry-after"] == "7"


def test_claude_mode_passes_a_redirect_on_and_does_not_follow_it() -> None:
    there = play()
    there.stage.says(ask())

    answer = there.stage.answers(an_answer("302 Found", b"", "Location: https://evil.test/"))

    assert status_of(answer) == 302
    assert fields_of(answer)["location"] == "https://evil.test/"
    assert len(there.stage.upstreams) == 1


@pytest.mark.parametrize(
    ("target", "status"), [("/v1/files", 404), ("/", 405), ("/v1/messages/", 404)]
)
def test_claude_mode_answers_what_is_not_served_with_an_api_error(target: str, status: int) -> None:
    there = play()

    answer = there.stage.says(ask("GET", target, body=b""))

    assert api_error(answer)[0] == status
    assert fields_of(answer)["x-claude-proxy-reason"] == "endpoint-not-allowed"
    assert there.stage.upstreams == []
    assert there.ledger.reasons == ["endpoint-not-allowed"]


@pytest.mark.parametrize(
    ("method", "target", "status", "detail"),
    [
        ("GET", "/v1/messages", 405, "Method not allowed"),
        ("OPTIONS", "/v1/messages", 405, "Method not allowed"),
        ("TRACE", "/v1/messages", 405, "Method not allowed"),
        ("GET", "/", 404, "Not found"),
        ("POST", "/v1/messages/count_tokens", 404, "Not found"),
        ("POST", "//v1/messages", 404, "Not found"),
        ("GET", "/openapi.json", 404, "Not found"),
        ("OPTIONS", "*", 404, "Not found"),
    ],
)
def test_strict_mode_answers_what_is_not_served_with_a_detail(
    method: str, target: str, status: int, detail: str
) -> None:
    there = play(STRICT)

    answer = there.stage.says(ask(method, target, body=b""))

    assert (status_of(answer), content_of(answer)) == (status, {"detail": detail})
    assert there.stage.upstreams == []


def test_strict_mode_refuses_what_is_not_valid_and_repeats_nothing() -> None:
    there = play(STRICT)

    answer = there.stage.says(ask(body=BODY.replace(b'"max_tokens": 5', b'"max_tokens": 0')))

    assert status_of(answer) == 422
    assert [one["loc"] for one in content_of(answer)["detail"]] == [["body", "max_tokens"]]
    assert PROMPT.encode() not in answer
    assert there.stage.upstreams == []
    assert there.ledger.reasons == ["rule-matched", "bad-request"]
    assert not there.stage.client.closed


def test_strict_mode_says_that_it_does_not_stream() -> None:
    answer = play(STRICT).stage.says(ask(body=BODY[:-1] + b', "stream": true}'))

    assert status_of(answer) == 422
    assert b"Streaming is not supported" in answer


@pytest.mark.parametrize("error", FAILURES)
def test_strict_mode_does_not_say_why_it_could_not_be_reached(error: DialError) -> None:
    there = play(STRICT, connects=False)
    there.stage.says(ask())

    answer = there.stage.reached(error)

    assert status_of(answer) == 502
    assert content_of(answer) == {
        "type": "error",
        "error": {"type": "proxy_error", "message": "Upstream request failed"},
    }
    assert "x-claude-proxy-reason" not in fields_of(answer)
    assert there.ledger.last.error == error.failure.value


def test_claude_mode_breaks_off_what_the_upstream_breaks_off() -> None:
    there = play()
    there.stage.says(ask())
    there.stage.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevent\r\n"[:-3])

    assert b"0\r\n\r\n" not in there.stage.upstream_ends()
    assert there.stage.client.closed
    assert there.ledger.last.error == "upstream-cut-short"
