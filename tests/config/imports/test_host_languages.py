"""Laws of host expressions: a pattern stands for one only if every host of it matches."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.imports import host_languages
from claude_proxy.config.imports.host_languages import HostExpression
from claude_proxy.config.imports.languages import URL_CHARS
from claude_proxy.config.imports.posix_regex import parse
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.wire.authority import Authority

EVERY = HostPattern.every()


def _expression(text: str, *, extended: bool = True, with_port: bool = False) -> HostExpression:
    expr = parse(text, extended=extended, ignore_case=True, alphabet=URL_CHARS)
    return HostExpression(expr, with_port=with_port)


@pytest.mark.parametrize(
    ("text", "patterns", "is_exact"),
    [
        (r"^api\.example\.com$", ["api.example.com"], True),
        (r"(^|\.)example\.com$", [".example.com"], True),
        (r"^(.*\.)?example\.com$", [".example.com"], True),
        (r"^(.+\.)?example\.com$", [".example.com"], True),
        (r"\.example\.com$", ["*.example.com"], True),
        (r"^.*\.example\.com$", ["*.example.com"], True),
        (r"^([A-Za-z0-9_-]+\.)*example\.com$", [".example.com"], True),
        (r"^([a-z0-9-]+\.)*example\.com$", ["example.com"], False),  # no underscores
        (r"^[^.]+\.example\.com$", [], False),  # one label, not any number
        (r"example\.com$", [".example.com"], False),
        (r"example\.com", [".example.com"], False),
        (r"^example\.com", ["example.com"], False),
        (r"^(api|www)\.example\.(com|org)$", ["api.example.com", "api.example.org",
                                              "www.example.com", "www.example.org"], True),
        ("google", [], False),
        ("example", [], False),  # a domain that no registry has
        ("^ads[0-9]*\\.", [], False),
        (r"\.com$", [], False),  # a public suffix
        (r"EXAMPLE\.com$", [".example.com"], False),
        (r"^192\.0\.2\.1$", ["192.0.2.1"], True),
    ],
)  # fmt: skip
def test_an_expression_contains_patterns(text: str, patterns: list[str], is_exact: bool) -> None:  # noqa: FBT001 - from a table
    found = _expression(text)

    assert sorted(map(str, found.patterns)) == sorted(patterns)
    assert (found.beyond(EVERY, found.patterns) is None) is is_exact


_parts = st.sampled_from(
    ["a", "b", r"\.", ".", r"example\.com", "example.com", "(a|b)", "[a-c]+", r"(.*\.)?", r"a\.b"]
)
_texts = st.builds(
    lambda start, parts, end: start + "".join(parts) + end,
    st.sampled_from(["", "^", r"(^|\.)", r"\."]),
    st.lists(_parts, min_size=1, max_size=4),
    st.sampled_from(["", "$"]),
)
_HOSTS = [
    *("a.b", "b.a.b", "example.com", "a.example.com", "aexample.com", "example.com.a"),
    *("a.b.example.com", "c.a", "exampleacom", "x.a.example.com", "_.example.com"),
]


@given(_texts)
def test_no_host_of_a_contained_pattern_is_unmatched(text: str) -> None:
    found = _expression(text)

    for host in _HOSTS:
        matched = re.search(text, host) is not None
        covered = any(each.covers(Authority.of(host, 443)) for each in found.patterns)
        assert matched or not covered
        if matched:
            assert found.may_match(HostPattern.parse(host))


@given(_texts)
def test_the_short_cut_says_what_the_search_says(text: str) -> None:
    expr = parse(text, extended=True, ignore_case=True, alphabet=URL_CHARS)
    shape = host_languages.shape_of(expr)
    if shape is None:
        return
    searched = HostExpression(expr)

    searched._shape = None

    assert searched.covers(shape.pattern)
    assert (searched.beyond(EVERY, [shape.pattern]) is None) is (shape.beyond is None)


def test_capital_letters_are_in_no_host() -> None:
    expr = parse("^Example.com$", extended=True, ignore_case=False, alphabet=URL_CHARS)

    assert HostExpression(expr).patterns == ()


def test_an_expression_that_cannot_be_read_may_match_anything() -> None:
    found = HostExpression(None)

    assert not found.is_known
    assert found.may_match(HostPattern.parse("example.com"))
    assert not found.covers(HostPattern.parse("example.com"))


def test_a_target_of_connect_is_matched_with_its_port() -> None:
    assert not _expression(r"example\.com$", with_port=True).patterns
    assert _expression(r"^example\.com:", with_port=True).covers(HostPattern.parse("example.com"))


def test_why_a_wider_pattern_does_not_do_is_known() -> None:
    found = _expression(r"^([a-z0-9-]+\.)*example\.com$")

    assert found.unmatched is not None
    assert str(found.unmatched[0]) == ".example.com"
    assert "_" in found.unmatched[1]
