"""Laws of POSIX expressions: read as grep reads them, or refused."""

import re
from contextlib import suppress
from string import printable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.imports.languages import URL_CHARS, Automaton, TooComplexError
from claude_proxy.config.imports.posix_regex import parse


def _automaton(text: str, *, extended: bool = True, ignore_case: bool = False) -> Automaton:
    expr = parse(text, extended=extended, ignore_case=ignore_case, alphabet=URL_CHARS)
    return Automaton(expr, anywhere=True)


# What means the same to POSIX and to `re`.
_atoms = st.sampled_from(["a", "b", ".", r"\.", "[ab]", "[^a]", "(a|b)", "^", "$"])
_pieces = st.builds(
    lambda atom, times: atom if atom in "^$" else atom + times,
    _atoms,
    st.sampled_from(["", "", "*", "+", "?", "{2}"]),
)


@given(st.lists(_pieces, max_size=5).map("".join), st.text("ab.", max_size=6))
def test_an_extended_expression_matches_what_it_matches_elsewhere(pattern: str, text: str) -> None:
    assert _automaton(pattern).accepts(text) is (re.search(pattern, text) is not None)


@given(st.text(printable, max_size=12), st.booleans())
def test_any_text_is_read_or_refused(text: str, extended: bool) -> None:  # noqa: FBT001 - from Hypothesis
    with suppress(ValueError, TooComplexError):
        _automaton(text, extended=extended)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (r"a+b", ["a+b"], ["aab"]),
        (r"\(a\|b\)c", ["bc"], ["(a|b)c"]),
        (r"*a", ["*a"], ["a"]),
        (r"a\{2\}", ["aa"], ["a"]),
        (r"a^b$c", ["a^b$c"], ["abc"]),
    ],
)
def test_a_basic_expression_has_its_operators_after_a_backslash(
    text: str, inside: list[str], outside: list[str]
) -> None:
    found = _automaton(text, extended=False)

    assert all(map(found.accepts, inside))
    assert not any(map(found.accepts, outside))


def test_a_backslash_in_a_bracket_is_a_backslash() -> None:
    found = _automaton(r"^[a\-c]$")

    assert found.accepts("b")  # it is the first character of a range
    assert found.accepts("\\")
    assert not found.accepts("-")


def test_classes_and_cases_are_understood() -> None:
    assert _automaton("^[[:digit:]_]+$").accepts("1_2")
    assert _automaton("^A$", ignore_case=True).accepts("a")
    assert not _automaton("^A$").accepts("a")


@pytest.mark.parametrize(
    "text",
    ["(", "a)", "[", "*a", "a{2,1}", "a{x}", "a||b", "()", r"\d", r"\1", "[[:nope:]]", "[b-a]",
     "^*", "\\", "x" * 3000, "(" * 60 + "a" + ")" * 60],
)  # fmt: skip
def test_what_posix_leaves_open_or_refuses_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"it|a "):
        _automaton(text)
