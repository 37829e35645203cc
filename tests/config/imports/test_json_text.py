"""Laws of JSON settings: each value has its line, and what is not JSON is an error."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.imports.json_text import JsonText
from claude_proxy.errors import ConfigError

_values = st.recursive(
    st.one_of(st.text(max_size=5), st.integers(), st.booleans(), st.none()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), _values, max_size=4))
def test_every_key_and_item_has_its_line(value: dict[str, object]) -> None:
    text = json.dumps(value, indent=1)

    found = JsonText(text, "s.json")

    lines = text.split("\n")
    for key in value:
        assert json.dumps(key) in lines[found.source(key).line - 1]


def test_texts_of_a_list_are_found_by_line() -> None:
    found = JsonText('{"a": {"b": [\n"x",\n\t"y"]}}', "s.json")

    assert [(text, place.line) for text, place in found.texts("a", "b")] == [("x", 2), ("y", 3)]
    assert list(found.texts("a", "c")) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "this is not JSON"),
        ('{"a": 1, // x\n}', "this is not JSON"),
        ("[]", "not a JSON object"),
        ('{"a": 1, "a": 2}', "is there twice"),
        ("[" * 100_000, "JSON|nested"),
    ],
)
def test_what_is_no_json_object_is_an_error(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        JsonText(text, "s.json")

    assert str(caught.value.where).startswith("s.json")


@pytest.mark.parametrize("text", ['{"a": "x"}', '{"a": {"b": "x"}}', '{"a": {"b": [1]}}'])
def test_a_value_of_another_type_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="not what it should be"):
        list(JsonText(text, "s.json").texts("a", "b"))
