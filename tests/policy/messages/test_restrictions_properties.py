"""Laws of the restrictions for every body: what is denied is denied in every spelling."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.messages.capabilities import capabilities_of
from claude_proxy.policy.messages.destinations import DestinationScope
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.reason import Reason
from tests.policy.messages.bodies import EVIL, MODEL, NARROW, OPEN, PLAIN, judged, request

# One wish of each kind as it stands in a body: beside others in an object, or in a list.
ASKS: tuple[tuple[Reason, dict[str, Any]], ...] = (
    (Reason.SOURCE_NOT_ALLOWED, {"type": "image", "source": {"type": "url", "url": EVIL}}),
    (Reason.SOURCE_NOT_ALLOWED, {"type": "document", "source": {"type": "file", "file_id": "a"}}),
    (Reason.SOURCE_NOT_ALLOWED, {"source": {"type": "link", "at": EVIL}}),
    (Reason.SERVER_TOOL_NOT_ALLOWED, {"tools": [{"type": "web_fetch_20250910", "name": "a"}]}),
    (Reason.SERVER_TOOL_NOT_ALLOWED, {"tools": [{"type": "code_execution_20260120"}]}),
    (Reason.SERVER_TOOL_NOT_ALLOWED, {"definition": {"type": "teleport_20270101"}}),
    (Reason.SERVER_TOOL_NOT_ALLOWED, {"container": {"id": "container_1"}}),
    (Reason.MCP_SERVER_NOT_ALLOWED, {"mcp_servers": [{"type": "url", "url": EVIL}]}),
    (Reason.MODEL_NOT_ALLOWED, {"model": "gpt-5"}),
    (Reason.MODEL_NOT_ALLOWED, {"fallbacks": "default"}),
    (Reason.BETA_NOT_ALLOWED, {"betas": ["files-api-2025-04-14"]}),
    (Reason.BODY_UNREADABLE, {"Model": "claude-opus-5"}),
)
# Harmless surroundings, in which no key counts.
WORDS = ("a", "name", "text", "content", "tool_choice", "new", "description")
leaves = st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=4)
filler = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)
    ),
    max_leaves=6,
)
fillers = st.dictionaries(st.sampled_from(WORDS), filler, max_size=3)


@st.composite
def wrapped(draw: st.DrawFn, value: Any) -> Any:
    """Draw surroundings for a value: it stands in objects and lists, at any depth."""
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.booleans()):
            before, after = draw(st.lists(filler, max_size=2)), draw(st.lists(filler, max_size=2))
            value = [*before, value, *after]
        else:
            value = {**draw(fillers), draw(st.sampled_from(("content", "new", "params"))): value}
    return value


@st.composite
def spelt(draw: st.DrawFn, value: Any) -> bytes:
    """Draw one of the ways in which a value can be written."""
    text = json.dumps(
        _shuffled(draw, value),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.none() | st.integers(0, 3)),
        separators=draw(st.sampled_from(((",", ":"), (" ,\t", "\r\n: "), (", ", ": ")))),
    )
    if draw(st.booleans()):  # a value may be escaped as one likes
        text = text.replace(EVIL, "".join(f"\\u{ord(char):04X}" for char in EVIL))
    return text.encode()


def _shuffled(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict):
        keys = draw(st.permutations(sorted(value)))
        return {key: _shuffled(draw, value[key]) for key in keys}
    return [_shuffled(draw, item) for item in value] if isinstance(value, list) else value


@given(st.data(), st.sampled_from(ASKS))
def test_what_is_denied_is_denied_however_it_is_spelt_and_wherever_it_stands(
    data: st.DataObject, case: tuple[Reason, dict[str, Any]]
) -> None:
    reason, wish = case
    around = data.draw(fillers)
    content = data.draw(wrapped({**around, **wish}))
    body = data.draw(spelt({"model": MODEL, "messages": [], "new": content}))

    assert judged(body) is reason


@given(st.data(), st.sampled_from(sorted(PLAIN)))
def test_what_is_allowed_is_allowed_however_it_is_spelt(data: st.DataObject, name: str) -> None:
    if PLAIN[name]:
        assert judged(data.draw(spelt(json.loads(PLAIN[name])))) is None


# Whatever is sent, there is an answer, and it is one of the words that there are for it.

COUNTING = (
    *("type", "source", "url", "file_id", "tools", "tool", "definition", "mcp_servers", "model"),
    *("container", "betas", "input", "input_schema", "schema", "configs", "requests", "params"),
    *("fallbacks", "allowed_domains", "tool_id", "tabs", "Type", "x"),
)
MEANING = (
    *(
        "url",
        "file",
        "base64",
        "content",
        "custom",
        "tool_use",
        "web_fetch_20250910",
        "mcp_toolset",
    ),
    *("bash_20250124", "json_schema", "container_upload", "tool_definition", "search_result"),
    *(EVIL, "https://mcp.test/", "good.test", MODEL, "", "web_search_result"),
)
odd = st.recursive(
    leaves | st.sampled_from(MEANING),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(COUNTING), inner, max_size=4)
    ),
    max_leaves=25,
)
objects = st.dictionaries(st.sampled_from(COUNTING), odd, max_size=3).map(
    lambda value: {**value, "model": MODEL}
)
DENIALS = {
    *(Reason.BODY_UNREADABLE, Reason.MODEL_NOT_ALLOWED, Reason.SERVER_TOOL_NOT_ALLOWED),
    *(Reason.MCP_SERVER_NOT_ALLOWED, Reason.SOURCE_NOT_ALLOWED, Reason.BETA_NOT_ALLOWED),
}


@given(objects)
def test_any_capability_gets_a_decision(value: dict[str, Any]) -> None:
    assert judged(json.dumps(value).encode()) in {None, *DENIALS}


@given(st.binary() | st.binary().map(lambda tail: b'{"model":"claude-1",' + tail))
def test_any_body_gets_a_decision(body: bytes) -> None:
    assert judged(body) in {None, *DENIALS}


@given(objects)
def test_no_url_outside_the_allowlist_is_fetched(value: dict[str, Any]) -> None:
    # A slow model: what is allowed names no stranger outside the places that are told apart.
    if judged(json.dumps(value).encode()) is None:
        assert EVIL not in set(_fetched(value))


LIMITS = ("models", "beta", "server_tools", "mcp_servers", "sources")


@given(objects, st.sets(st.sampled_from(LIMITS)))
def test_a_narrower_entry_allows_no_more(value: dict[str, Any], some: set[str]) -> None:
    body = json.dumps(value).encode()
    lifted = {name: getattr(OPEN, name) for name in some}

    if judged(body) is None:
        assert judged(body, replace(NARROW, **lifted)) is None


def _fetched(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _fetched(item)
    elif isinstance(value, dict):
        kind = value.get("type")
        if isinstance(url := value.get("url"), str) and kind != "web_search_result":
            yield url
        for key, item in value.items():
            if key == "input_schema" or (key == "input" and kind == "tool_use"):
                continue
            if key == "schema" and kind == "json_schema":
                continue
            if key == "configs" and kind == "mcp_toolset":
                continue
            yield from _fetched(item)


@given(st.text(max_size=12), st.text(max_size=12), st.binary(max_size=12))
def test_any_head_gets_a_decision(path: str, query: str, beta: bytes) -> None:
    asked = request(f"/{path}", query=query, fields=((b"anthropic-beta", beta),))

    assert NARROW.judge_head(asked) in {
        *(None, Reason.AMBIGUOUS_PATH, Reason.ENDPOINT_NOT_ALLOWED, Reason.BETA_NOT_ALLOWED)
    }


@given(st.text(max_size=30), st.sampled_from(("", "https://", "https://a.images.test")))
def test_a_listed_host_is_the_one_that_every_client_would_go_to(rest: str, start: str) -> None:
    reach = DestinationScope(allowlisted=False, hosts=(HostPattern.parse("*.images.test"),))
    url = start + rest

    if reach.allows(url, "GET", lambda *_: True):
        authority = url.removeprefix("https://").partition("/")[0]
        assert authority.removesuffix(":443").lower().endswith(".images.test")
        assert not set(authority) & set("@\\?# \t\r\n%")


@given(objects)
def test_finding_capabilities_changes_nothing(value: dict[str, Any]) -> None:
    before = json.dumps(value)

    list(capabilities_of(value))

    assert json.dumps(value) == before
