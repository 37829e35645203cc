"""What is written as YAML is read back as the same value, by readers of both versions of it."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.sandbox.container.files.yaml_text import document, documents

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc", min_size=1), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abcxyz", min_size=1), VALUES, min_size=1))
def test_every_value_is_read_back(value: dict[str, Any]) -> None:
    assert yaml.safe_load(document(value)) == value


@pytest.mark.parametrize(
    "text", ["no", "on", "Yes", "0755", "1e3", "12:30", "~", "null", "2026-01-01", "1_0", "y", ""]
)
def test_a_text_that_some_reader_takes_for_something_else_is_quoted(text: str) -> None:
    assert document({"key": text}) == f'key: "{text}"\n'


def test_a_comment_is_above_its_key() -> None:
    assert document({"a": 1, "b": 2}, {"b": "Why.\n\nMore."}) == "a: 1\n# Why.\n#\n# More.\nb: 2\n"


def test_the_same_value_twice_is_written_twice() -> None:
    shared = {"x": [1]}

    assert "&" not in document({"a": {"p": shared, "q": shared}})


def test_several_documents_are_one_stream() -> None:
    assert list(yaml.safe_load_all(documents([{"a": 1}, {"b": 2}]))) == [{"a": 1}, {"b": 2}]
