"""Laws of regular languages: a counterexample is found if there is one, or nothing is said."""

import pytest

from claude_proxy.config.imports import languages
from claude_proxy.config.imports.languages import (
    HOST_CHARS,
    Alt,
    Anchor,
    Any1,
    Automaton,
    Repeat,
    Seq,
    TooComplexError,
    literal,
    witness,
)

_LETTER = Any1(frozenset("ab"))
_WORD = Repeat(_LETTER, 1, None)


@pytest.mark.parametrize(
    ("expr", "inside", "outside"),
    [
        (literal("ab"), ["ab"], ["a", "abb", ""]),
        (Alt((literal("a"), literal("bb"))), ["a", "bb"], ["b", "abb"]),
        (Repeat(literal("a"), 1, 2), ["a", "aa"], ["", "aaa"]),
        (Repeat(literal("ab"), 0, None), ["", "ab", "abab"], ["aba"]),
        (Repeat(literal("a"), 2, None), ["aa", "aaaa"], ["a"]),
    ],
)
def test_an_automaton_accepts_what_its_expression_says(
    expr: languages.Expr, inside: list[str], outside: list[str]
) -> None:
    found = Automaton(expr)

    assert all(map(found.accepts, inside))
    assert not any(map(found.accepts, outside))


def test_an_expression_may_match_anywhere_but_for_its_anchors() -> None:
    end = Automaton(Seq((literal("b"), Anchor(at_end=True))), anywhere=True)
    start = Automaton(Seq((Anchor(at_end=False), literal("b"))), anywhere=True)

    assert end.accepts("aab")
    assert not end.accepts("aba")
    assert start.accepts("baa")
    assert not start.accepts("aba")


def test_the_shortest_counterexample_is_found() -> None:
    words, short = Automaton(_WORD), Automaton(Repeat(_LETTER, 0, 2))

    found = witness([words], [short], alphabet=HOST_CHARS)

    assert found is not None
    assert len(found) == 3
    assert witness([short, words], [words], alphabet=HOST_CHARS) is None


def test_an_expression_that_is_too_large_is_refused() -> None:
    with pytest.raises(TooComplexError):
        Automaton(Repeat(Repeat(_LETTER, 255, 255), 255, 255))


def test_a_search_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "_MOST_VISITS", 3)

    with pytest.raises(TooComplexError):
        witness([Automaton(literal("ababab"))], alphabet=HOST_CHARS)
