"""Regular expressions that wait for their first use."""

import re
from importlib import import_module

import pytest

from claude_proxy.deferred import patterns
from claude_proxy.deferred.patterns import lazy_pattern
from tests.test_architecture import MODULES


def test_a_pattern_answers_as_a_compiled_one() -> None:
    words = lazy_pattern(r"(?P<first>[a-z])[a-z]*", re.IGNORECASE)

    assert words.pattern == r"(?P<first>[a-z])[a-z]*"
    assert (found := words.fullmatch("Words")) is not None
    assert found["first"] == "W"
    assert words.match("1") is None
    assert words.search("1 a") is not None
    assert words.findall("ab cd") == ["a", "c"]
    assert [one.end() for one in words.finditer("ab cd")] == [2, 5]
    assert words.sub("-", "ab cd", 1) == "- cd"
    assert words.split("1a2", 1) == ["1", "a", "2"]
    assert words.groupindex == {"first": 1}
    assert words.flags & re.IGNORECASE


def test_a_pattern_of_bytes_answers_for_bytes() -> None:
    assert lazy_pattern(rb"[a-z]+").fullmatch(b"abc") is not None


def test_a_method_that_was_taken_before_answers_again_and_again() -> None:
    is_word = lazy_pattern("[a-z]+").fullmatch

    assert [bool(is_word(text)) for text in ("abc", "1", "d")] == [True, False, True]


def test_nothing_is_compiled_before_it_is_needed() -> None:
    wrong = lazy_pattern("(")
    fullmatch = wrong.fullmatch

    with pytest.raises(re.error):
        fullmatch("a")


def test_what_a_pattern_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        lazy_pattern("a").nothing  # type: ignore[attr-defined]  # noqa: B018


def test_within_it_patterns_of_a_module_wait_too() -> None:
    compile_ = re.compile

    with patterns.compiled_later():
        waiting = re.compile("[a-z]+")
    now = re.compile("[a-z]+")

    assert [type(one).__name__ for one in (waiting, now)] == ["_LazyPattern", "Pattern"]
    assert waiting.fullmatch("a") is not None
    assert re.compile is compile_


def test_after_an_import_that_fails_patterns_are_compiled_at_once() -> None:
    with pytest.raises(ImportError), patterns.compiled_later():
        raise ImportError

    assert type(re.compile("[a-z]+")) is re.Pattern


def test_every_pattern_of_the_package_compiles() -> None:
    found = []
    for name in MODULES:
        if name != "__main__":
            module = import_module(f"claude_proxy.{name}".removesuffix("."))
            found += [
                one.compiled()
                for one in vars(module).values()
                if isinstance(one, patterns._LazyPattern)
            ]

    assert len(found) > 50
