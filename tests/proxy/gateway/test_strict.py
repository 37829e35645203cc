"""Strict mode takes one shape of request, says which field is wrong, and repeats nothing of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.proxy.gateway.strict import Invalid, read

PROMPT = "canary of the prompt"
GOOD: dict[str, Any] = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 16,
    "messages": [{"role": "user", "content": PROMPT}],
}
PIXEL = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}


def body(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


def written(raw: bytes) -> Any:
    return json.loads(read(raw).written())


def places(raw: bytes) -> list[str]:
    """Return where it is wrong, "messages.0.role"."""
    with pytest.raises(Invalid) as caught:
        read(raw)
    assert PROMPT not in json.dumps(caught.value.shown())
    assert PROMPT not in str(caught.value)
    return [".".join(map(str, complaint.path)) for complaint in caught.value.complaints]


def messages(raw: bytes) -> list[str]:
    with pytest.raises(Invalid) as caught:
        read(raw)
    return [str(shown["msg"]) for shown in caught.value.shown()]


def test_a_request_of_what_is_needed_is_taken() -> None:
    assert written(body()) == GOOD


def test_a_request_of_all_there_is_is_taken() -> None:
    whole = GOOD | {
        "system": [
            {
                "type": "text",
                "text": "be brief",
                "cache_control": {"type": "ephemeral", "ttl": "1h"},
            }
        ],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image", "source": PIXEL},
                    {
                        "type": "document",
                        "title": "t",
                        "source": {"type": "text", "media_type": "text/plain", "data": "d"},
                    },
                ],
            },
            {"role": "assistant", "content": "I see"},
        ],
        "metadata": {"user_id": "u"},
        "stop_sequences": ["END"],
        "temperature": 0.5,
        "top_p": 1,
        "top_k": 0,
    }

    assert written(json.dumps(whole).encode()) == whole


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not json " + PROMPT.encode(),
        b'{"model": "m", "model": "n"}',
        b'{"model": "\xff"}',
        b'{"model": "m"} trailing',
        b'{"max_tokens": NaN}',
        b"[" * 200 + b"]" * 200,
        b"[]",
        b'"text"',
        b"null",
    ],
)
def test_what_is_no_json_is_a_complaint_about_the_body(raw: bytes) -> None:
    assert places(raw) == [""]


@pytest.mark.parametrize("name", ["messages", "max_tokens", "model"])
@pytest.mark.parametrize("absent", [True, False])
def test_what_is_required_must_be_there(name: str, *, absent: bool) -> None:
    fields = GOOD | {name: None}
    if absent:
        del fields[name]

    assert places(json.dumps(fields).encode()) == [name]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"messages": []}, "messages"),
        ({"messages": {"role": "user"}}, "messages"),
        ({"messages": ["hi"]}, "messages.0"),
        ({"messages": [{"role": "system", "content": PROMPT}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "16"}, "max_tokens"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 1.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 0.5}, "top_k"),
        ({"stop_sequences": [1]}, "stop_sequences.0"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"system": 5}, "system"),
        ({"system": [{"type": "image", "source": PIXEL}]}, "system.0.type"),
        ({"metadata": {"user_id": 5}}, "metadata.user_id"),
        ({"metadata": {"email": "a@b"}}, "metadata.email"),
        ({"stream": "false"}, "stream"),
    ],
)
def test_a_field_is_what_it_should_be_or_named(changes: dict[str, Any], place: str) -> None:
    assert places(body(**changes)) == [place]


def test_streaming_is_refused_in_so_many_words() -> None:
    assert places(body(stream=True)) == ["stream"]
    assert "Streaming is not supported" in messages(body(stream=True))[0]


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({"tools": []}, "tools", "Tools are not supported"),
        ({"tool_choice": {"type": "auto"}}, "tool_choice", "Tools are not supported"),
        ({"mcp_servers": []}, "mcp_servers", "Tools are not supported"),
        ({"thinking": {"type": "enabled"}}, "thinking", "Thinking is not supported"),
        ({"service_tier": "auto"}, "service_tier", "This field is not supported"),
        ({"tools": None}, "tools", "Tools are not supported"),
    ],
)
def test_what_is_not_known_is_refused_and_not_dropped(
    changes: dict[str, Any], place: str, message: str
) -> None:
    assert places(body(**changes)) == [place]
    assert messages(body(**changes)) == [message]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "tool_use", "id": "t", "name": "n", "input": {}},
        {"type": "tool_result", "tool_use_id": "t"},
        {"type": "thinking", "thinking": PROMPT, "signature": "s"},
        {"type": "image", "source": {"type": "url", "url": "https://evil.test/"}},
        {"type": "document", "source": {"type": "file", "file_id": "f"}},
        {"type": "image", "source": PIXEL | {"url": "https://evil.test/"}},
        {"type": "image", "source": PIXEL | {"media_type": 5}},
        {"type": "text", "text": PROMPT, "citations": []},
        {"type": "text"},
        {"type": ["text"]},
        {"text": PROMPT},
        "text",
        {"type": "text", "text": PROMPT, "cache_control": {"type": "persistent"}},
    ],
)
def test_a_block_of_another_shape_is_refused(block: object) -> None:
    found = places(body(messages=[{"role": "user", "content": [block]}]))

    assert found
    assert all(place.startswith("messages.0.content.0") for place in found)


def test_nulls_are_left_out_upstream() -> None:
    raw = body(
        system=None,
        temperature=None,
        stream=None,
        metadata={"user_id": None},
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": None}]}
        ],
    )

    assert written(raw) == GOOD | {
        "metadata": {},
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    }


def test_not_to_stream_needs_no_word_upstream() -> None:
    assert written(body(stream=False)) == GOOD


def test_text_goes_upstream_as_text() -> None:
    raw = json.dumps(GOOD | {"system": "çafé 🎉 \u2028 \u0007"}, ensure_ascii=False).encode()

    assert written(raw)["system"] == "çafé 🎉 \u2028 \u0007"


def test_a_name_that_is_long_is_not_shown() -> None:
    assert places(body(**{PROMPT: 1})) == ["(another field)"]
    assert places(body(**{"x" * 41: 1})) == ["(another field)"]


def test_many_mistakes_are_not_all_told() -> None:
    assert len(places(body(messages=[5] * 10_000))) == 20


def test_what_is_asked_is_not_shown_by_accident() -> None:
    assert PROMPT not in repr(read(body()))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "system", "stream", "tools", "top_k"]), _JSON))
def test_whatever_comes_is_read_or_complained_about(changes: dict[str, Any]) -> None:
    raw = json.dumps(GOOD | changes).encode()

    try:
        asked = json.loads(read(raw).written())
    except Invalid:
        return

    assert asked["messages"]
    assert asked["max_tokens"] >= 1
    assert not {"stream", "tools"} & set(asked)


@given(st.binary(max_size=64))
def test_bytes_are_read_or_complained_about(raw: bytes) -> None:
    with pytest.raises(Invalid):
        read(raw)
