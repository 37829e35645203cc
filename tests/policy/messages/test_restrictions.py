"""What a request asks the Messages API for is judged like a request itself."""

import json
from dataclasses import replace
from typing import Any

import pytest

from claude_proxy.policy.messages.capabilities import MAX_NON_ASCII_KEYS
from claude_proxy.policy.messages.destinations import DestinationScope
from claude_proxy.policy.messages.restrictions import MAX_CAPABILITIES, MIB, ApiRestrictions
from claude_proxy.policy.patterns import PathGlob
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request
from tests.policy.messages.bodies import (
    INFERENCE,
    JSON,
    NARROW,
    OPEN,
    PLAIN,
    WISHES,
    body,
    image,
    judged,
    reaches,
    request,
    tool,
)


@pytest.mark.parametrize(("content", "reason"), WISHES.values(), ids=WISHES)
def test_what_is_not_listed_is_denied_with_its_reason(content: bytes, reason: Reason) -> None:
    assert judged(content) is reason


@pytest.mark.parametrize("content", PLAIN.values(), ids=PLAIN)
def test_what_is_asked_of_the_client_or_listed_is_allowed(content: bytes) -> None:
    assert judged(content) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [wish for wish in WISHES.values() if wish[1] is not Reason.BODY_UNREADABLE],
)
def test_what_is_not_narrowed_is_allowed(content: bytes, reason: Reason) -> None:
    assert judged(content, OPEN) is None
    assert reason is not None


# A wish in the narrowing of another one must be no way around its own.
KEYS: dict[Reason, dict[str, Any]] = {
    Reason.MODEL_NOT_ALLOWED: {"models": None},
    Reason.BETA_NOT_ALLOWED: {"beta": None},
    Reason.SERVER_TOOL_NOT_ALLOWED: {"server_tools": None, "paths": None},
    Reason.MCP_SERVER_NOT_ALLOWED: {"mcp_servers": DestinationScope(every=True)},
    Reason.SOURCE_NOT_ALLOWED: {"sources": DestinationScope(every=True), "paths": None},
}


@pytest.mark.parametrize("name", [name for name in WISHES if WISHES[name][1] in KEYS])
def test_each_key_is_narrowed_by_itself(name: str) -> None:
    content, reason = WISHES[name]

    assert judged(content, replace(NARROW, **KEYS[reason])) is None


def test_web_fetch_goes_nowhere_where_no_source_may_be_opened() -> None:
    nowhere = replace(NARROW, sources=DestinationScope(allowlisted=False))

    assert judged(PLAIN["fetching from the allowlist"], nowhere) is Reason.SERVER_TOOL_NOT_ALLOWED


def test_web_fetch_is_bound_to_the_allowlist_although_every_source_is_open() -> None:
    every = replace(NARROW, sources=DestinationScope(every=True))

    assert judged(PLAIN["fetching from the allowlist"], every) is None
    assert judged(WISHES["fetching from elsewhere"][0], every) is Reason.SERVER_TOOL_NOT_ALLOWED


def test_tools_of_a_server_need_that_some_server_may_be_asked() -> None:
    nowhere = replace(NARROW, mcp_servers=DestinationScope(allowlisted=False))
    content = body(tools=[{"type": "mcp_toolset", "mcp_server_name": "stored"}])

    assert judged(content, nowhere) is Reason.MCP_SERVER_NOT_ALLOWED


def test_a_server_tool_may_be_listed_with_its_date() -> None:
    dated = replace(NARROW, server_tools=("web_fetch_20250910",))

    assert judged(body(tools=[tool("web_fetch_20250910")]), dated) is None
    assert judged(body(tools=[tool("web_fetch_20260209")]), dated) is Reason.SERVER_TOOL_NOT_ALLOWED


def test_a_file_may_be_named_where_files_may_be_stored() -> None:
    files = replace(NARROW, paths=(*INFERENCE, PathGlob("/v1/files")))

    assert judged(WISHES["a file"][0], files) is None


def test_each_request_of_a_batch_is_judged() -> None:
    def batch(*contents: bytes) -> bytes:
        params = [{"custom_id": "a", "params": json.loads(content)} for content in contents]
        return json.dumps({"requests": params}).encode()

    assert judged(batch(body(), body())) is None
    for content, reason in WISHES.values():
        if reason is not Reason.BODY_UNREADABLE:
            assert judged(batch(body(), content)) is reason


@pytest.mark.parametrize("requests", [{}, "a", [1], [{}], [{"params": 1}], [{"params": {}}]])
def test_an_invalid_batch_names_no_models(requests: Any) -> None:
    assert judged(json.dumps({"requests": requests}).encode()) is Reason.MODEL_NOT_ALLOWED


def test_a_body_over_its_limit_is_not_read() -> None:
    small = replace(NARROW, max_bytes=8)

    assert judged(b"x" * 9, small) is Reason.BODY_TOO_LARGE
    assert NARROW.max_bytes == 32 * MIB


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ((b"Content-Type", b"text/plain"),),
        ((b"Content-Type", b"application/jsonp"),),
        ((b"Content-Type", b"application/json; charset=utf-16"),),
        ((b"Content-Type", b"multipart/form-data; boundary=a"),),
        (JSON, JSON),
        (JSON, (b"content_type", b"text/plain")),
        (JSON, (b"Content-Encoding", b"gzip")),
        (JSON, (b"Content-Encoding", b"identity"), (b"content-encoding", b"br")),
    ],
)
def test_a_body_that_is_not_plain_json_by_its_head_is_denied(
    fields: tuple[tuple[bytes, bytes], ...],
) -> None:
    assert NARROW.judge_body(request(fields=fields), body(), reaches) is Reason.BODY_UNREADABLE


@pytest.mark.parametrize(
    "fields",
    [
        ((b"content-type", b" application/json\t"),),
        ((b"CONTENT-TYPE", b"Application/JSON; charset=UTF-8"),),
        ((b"Content-Type", b'application/json;charset="utf-8"'),),
        (JSON, (b"Content-Encoding", b"Identity")),
    ],
)
def test_plain_json_may_say_so_as_it_likes(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    assert NARROW.judge_body(request(fields=fields), body(), reaches) is None


# What there may be many of, each time with the number of one of them.
MANY: dict[str, tuple[Any, Reason]] = {
    "images": (
        lambda numbers: body(image_urls=[f"https://a.images.test/{number}" for number in numbers]),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "images of the allowlist": (
        lambda numbers: body(
            *(image({"type": "url", "url": f"https://n{number}.any.test/"}) for number in numbers)
        ),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "servers": (
        lambda numbers: body(
            mcp_servers=[{"url": f"https://mcp.test/{number}"} for number in numbers]
        ),
        Reason.MCP_SERVER_NOT_ALLOWED,
    ),
    "domains": (
        lambda numbers: body(
            tools=[
                tool(
                    "web_fetch_20250910",
                    allowed_domains=[f"n{number}.any.test" for number in numbers[1:]],
                )
            ]
        ),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "tools with a domain": (
        lambda numbers: body(
            tools=[
                tool("web_fetch_20250910", allowed_domains=[f"n{number}.any.test"])
                for number in numbers[1::2]
            ]
        ),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "models": (
        lambda numbers: body(fallbacks=[{"model": f"claude-{number}"} for number in numbers[1:]]),
        Reason.MODEL_NOT_ALLOWED,
    ),
    "betas": (
        lambda numbers: body(betas=[f"oauth-{number}" for number in numbers]),
        Reason.BETA_NOT_ALLOWED,
    ),
}


@pytest.mark.parametrize(("make", "reason"), MANY.values(), ids=MANY)
def test_a_body_asks_for_no_more_than_can_be_judged_at_once(make: Any, reason: Reason) -> None:
    def judge(content: bytes) -> Any:
        lists = replace(NARROW, sources=DestinationScope(hosts=NARROW.sources.hosts))
        # The model of the body is one thing more.
        return replace(lists, models=("*",)).judge_body(request(), content, lambda *_: True)

    assert judge(make(range(MAX_CAPABILITIES - 1))) is None
    assert judge(make(range(MAX_CAPABILITIES + 2))) is reason


@pytest.mark.parametrize(("make", "reason"), MANY.values(), ids=MANY)
def test_what_is_not_narrowed_may_be_asked_for_however_often(make: Any, reason: Reason) -> None:
    content = make(range(2 * MAX_CAPABILITIES))
    lifted = replace(NARROW, **KEYS[reason])

    assert lifted.judge_body(request(), content, lambda *_: True) is None


def test_each_thing_that_a_body_asks_for_is_judged_once() -> None:
    asked: list[tuple[str, str]] = []

    def ask(url: str, method: str = "GET") -> bool:
        asked.append((url, method))
        return True

    url = "https://good.test/x"
    content = body(image_urls=[url] * 2000, mcp_servers=[{"url": url}] * 2000)

    assert NARROW.judge_body(request(), content, ask) is None
    assert sorted(asked) == [(url, "GET"), (url, "POST")]


@pytest.mark.parametrize("name", ["model", "image_url", "betas"])
def test_what_a_body_asks_for_is_no_longer_than_can_be_judged_at_once(name: str) -> None:
    every = replace(NARROW, models=("*",), beta=("*",))
    content = body(**{name: "https://good.test/" + "x" * MIB})

    assert every.judge_body(request(), content, lambda *_: True) is not None


def test_keys_that_no_api_has_are_not_looked_at_without_end() -> None:
    def asking(new: Any) -> bytes:
        return json.dumps({"model": "claude-1", "new": new}, ensure_ascii=False).encode()

    keys = [f"\ufdfa{number}" for number in range(MAX_NON_ASCII_KEYS + 1)]

    assert judged(asking(dict.fromkeys(keys[1:]))) is None
    assert judged(asking(dict.fromkeys(keys))) is Reason.BODY_UNREADABLE
    assert judged(asking([{key: None} for key in keys])) is Reason.BODY_UNREADABLE


def test_a_text_names_no_more_betas_than_can_be_judged_at_once() -> None:
    assert judged(body(betas=",".join(["oauth-1"] * 100))) is None
    assert judged(body(betas=",".join(["oauth-1"] * 101))) is Reason.BETA_NOT_ALLOWED


def beta(*values: bytes, name: bytes = b"anthropic-beta") -> tuple[tuple[bytes, bytes], ...]:
    return (JSON, *((name, value) for value in values))


HEADS: dict[str, tuple[Request, Reason | None]] = {
    "inference": (request(), None),
    "as the SDKs ask": (request(query="beta=true"), None),
    "counting": (request("/v1/messages/count_tokens"), None),
    "a question for the same": (request(method="GET"), None),
    "another path": (request("/v1/files"), Reason.ENDPOINT_NOT_ALLOWED),
    "batches": (request("/v1/messages/batches"), Reason.ENDPOINT_NOT_ALLOWED),
    "a slash more": (request("/v1/messages/"), Reason.ENDPOINT_NOT_ALLOWED),
    "capitals": (request("/v1/Messages"), Reason.ENDPOINT_NOT_ALLOWED),
    "no path": (request("*", "OPTIONS"), Reason.ENDPOINT_NOT_ALLOWED),
    "two slashes": (request("/v1//messages"), Reason.AMBIGUOUS_PATH),
    "a way back": (request("/v1/files/../messages"), Reason.AMBIGUOUS_PATH),
    "an escape": (request("/v1/%6dessages"), Reason.AMBIGUOUS_PATH),
    "parameters": (request("/v1/messages;v=2"), Reason.AMBIGUOUS_PATH),
    "a query that nobody sends": (request(query="model=a"), Reason.ENDPOINT_NOT_ALLOWED),
    "two queries": (request(query="beta=true&beta=x"), Reason.ENDPOINT_NOT_ALLOWED),
    "a WebSocket": (
        request(method="GET", fields=((b"Upgrade", b"websocket"),)),
        Reason.ENDPOINT_NOT_ALLOWED,
    ),
    "a beta": (request(fields=beta(b"oauth-2025-04-20")), None),
    "betas": (request(fields=beta(b"oauth-1 ,\teffort-2025-11-24,", b"oauth-2")), None),
    "no beta": (request(fields=beta(b"")), None),
    "another beta": (request(fields=beta(b"files-api-2025-04-14")), Reason.BETA_NOT_ALLOWED),
    "another beta in a list": (request(fields=beta(b"oauth-1,mcp")), Reason.BETA_NOT_ALLOWED),
    "another beta in a second field": (
        request(fields=beta(b"oauth-1", b"mcp")),
        Reason.BETA_NOT_ALLOWED,
    ),
    "a beta in capitals": (request(fields=beta(b"OAUTH-1")), Reason.BETA_NOT_ALLOWED),
    "a beta that is not ASCII": (request(fields=beta(b"\xff")), Reason.BETA_NOT_ALLOWED),
    "a beta in a field that some fold": (
        request(fields=beta(b"mcp", name=b"Anthropic_Beta")),
        Reason.BETA_NOT_ALLOWED,
    ),
}


@pytest.mark.parametrize(("asked", "reason"), HEADS.values(), ids=HEADS)
def test_a_head_is_judged_by_path_query_and_betas(asked: Request, reason: Reason | None) -> None:
    assert NARROW.judge_head(asked) is reason


def test_a_path_that_could_be_two_is_denied_wherever_bodies_are_judged() -> None:
    models = replace(OPEN, models=("claude-*",))

    assert models.judge_head(request("/v1//messages")) is Reason.AMBIGUOUS_PATH
    assert OPEN.judge_head(request("/v1//messages")) is None


LIMITS = (
    replace(OPEN, models=("claude-*",)),
    replace(OPEN, beta=()),
    replace(OPEN, server_tools=()),
    replace(OPEN, mcp_servers=DestinationScope()),
    replace(OPEN, sources=DestinationScope()),
)


@pytest.mark.parametrize("narrowing", LIMITS)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages",
        "/v1/messages/",
        "/v1/messages/count_tokens",
        "/v1/messages/batches",
        "/V1/MESSAGES",
        "/v1/%4dessages",
        "/v2/x/messages",
        "/v1/complete",
        "/v1/chat/completions",
        "/v1/responses",
        "/model/anthropic.claude/invoke-with-response-stream",
        "/v1/projects/a/models/claude:streamRawPredict",
    ],
)
def test_the_body_of_an_inference_request_is_read_in_every_spelling_of_its_path(
    narrowing: ApiRestrictions, path: str
) -> None:
    assert narrowing.judges_body_of(request(path))


@pytest.mark.parametrize("path", ["/v1/models", "/api/event_logging/v2/batch", "/v1/oauth/token"])
def test_the_body_of_another_request_is_not_read(path: str) -> None:
    assert not NARROW.judges_body_of(request(path))


def test_no_body_is_read_where_only_paths_are_narrowed() -> None:
    assert not replace(OPEN, paths=INFERENCE).judges_body_of(request())
