"""A glob matches a word or not, in a time that only depends on their lengths."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.messages.glob import matches, matches_any


@pytest.mark.parametrize(
    ("glob", "word"),
    [
        ("claude-opus-5", "claude-opus-5"),
        ("claude-*", "claude-"),
        ("claude-*", "claude-opus-5"),
        ("*-opus-*", "claude-opus-5"),
        ("a*b*c", "abbc"),
        ("*", ""),
    ],
)
def test_a_star_matches_any_characters(glob: str, word: str) -> None:
    assert matches(glob, word)


@pytest.mark.parametrize(
    ("glob", "word"),
    [
        ("claude-opus-5", "Claude-Opus-5"),
        ("claude-*", "claude"),
        ("claude-*", "xclaude-1"),
        ("a*a", "a"),
        ("a*b*c", "acb"),
        ("a.c", "abc"),
        ("", "a"),
    ],
)
def test_other_characters_match_themselves(glob: str, word: str) -> None:
    assert not matches(glob, word)


def test_of_several_globs_one_is_enough() -> None:
    assert matches_any(("a", "b*"), "bc")
    assert not matches_any((), "a")


@given(st.text("ab*", max_size=8), st.text("ab\n", max_size=10))
def test_a_glob_is_the_expression_that_it_looks_like(glob: str, word: str) -> None:
    expression = ".*".join(map(re.escape, glob.split("*")))

    assert matches(glob, word) == (re.fullmatch(expression, word, re.DOTALL) is not None)
