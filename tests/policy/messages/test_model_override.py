"""The model of a request is replaced, and every other byte stays."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.messages.capabilities import MAX_NON_ASCII_KEYS
from claude_proxy.policy.messages.model_override import with_model
from claude_proxy.policy.messages.strict_json import UnreadableError

MAP = (("claude-opus-5", "big"), ("claude-haiku-5", "small"))


@pytest.mark.parametrize(
    ("body", "spliced"),
    [
        (b'{"model":"claude-opus-5"}', b'{"model":"big"}'),
        (b' {\t"model" :\r\n"claude-opus-5" , "a":[1]}\n', b' {\t"model" :\r\n"big" , "a":[1]}\n'),
        (b'{"a":{"model":"claude-opus-5"},"model":"claude-haiku-5"}', None),
        (b'{"a":"\\"model\\":\\"x\\"","b":[],"model":"claude\\u002dopus-5"}', None),
        ('{"é":"\U0001f600","model":"claude-opus-5","ü":1}'.encode(), None),
    ],
)
def test_the_value_alone_is_changed(body: bytes, spliced: bytes | None) -> None:
    result = with_model(body, MAP)

    if spliced is None:
        asked = json.loads(body)["model"]
        written = b'"claude\\u002dopus-5"' if b"\\u002d" in body else f'"{asked}"'.encode()
        before, _, after = body.rpartition(written)
        spliced = before + json.dumps(dict(MAP)[asked]).encode() + after
    assert result == spliced


@pytest.mark.parametrize(
    "body",
    [b'{"model":"other"}', b'{"model":5}', b'{"model":null}', b"{}", b'{"a":{"model":"big"}}'],
)
def test_what_the_map_does_not_name_stays(body: bytes) -> None:
    assert with_model(body, MAP) == body


def test_a_star_is_each_that_has_no_pair_of_its_own() -> None:
    models = (*MAP, ("*", "any"))

    assert with_model(b'{"model":"claude-opus-5"}', models) == b'{"model":"big"}'
    assert with_model(b'{"model":"other"}', models) == b'{"model":"any"}'
    assert with_model(b'{"model":null}', models) == b'{"model":"any"}'
    assert with_model(b'{"model":"any" }', models) == b'{"model":"any" }'


def test_a_star_is_for_a_request_without_a_model_too() -> None:
    assert with_model(b" { }", (("*", "any"),)) == b' {"model":"any" }'
    assert with_model(b'{"a":1}', (("*", "any"),)) == b'{"model":"any","a":1}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"model":"a","model":"b"}',
        b'{"m\\u006fdel":"a"}',
        b'{"Model":"a"}',
        b'{"model":"a","MODEL":"b"}',
        b"\xff",
    ],
)
def test_a_body_that_could_be_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableError):
        with_model(body, MAP)


values = st.recursive(
    st.none() | st.integers(0, 99) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("model", "a")), inner, max_size=2)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(("a", "b", "c")), values),
    st.sampled_from(("claude-opus-5", "x", 'a"b')),
    st.text(max_size=8),
    st.data(),
)
def test_a_second_parser_finds_the_same_request_with_the_other_model(
    others: dict[str, Any], asked: str, given_model: str, data: st.DataObject
) -> None:
    keys = data.draw(st.permutations(("model", *others)))
    request = {key: {**others, "model": asked}[key] for key in keys}
    indent = data.draw(st.none() | st.integers(0, 2))
    body = json.dumps(request, indent=indent, ensure_ascii=False).encode()

    spliced = with_model(body, ((asked, given_model),))

    assert orjson.loads(spliced) == {**request, "model": given_model}
    assert list(orjson.loads(spliced)) == list(request)


def test_keys_that_no_api_has_are_not_looked_at_without_end() -> None:
    keys = [f"\ufdfa{number}" for number in range(MAX_NON_ASCII_KEYS + 1)]
    few, many = (json.dumps(dict.fromkeys(some), ensure_ascii=False) for some in (keys[1:], keys))

    assert with_model(few.encode(), [("*", "m")]).startswith(b'{"model":"m"')
    with pytest.raises(UnreadableError):
        with_model(many.encode(), [("*", "m")])
