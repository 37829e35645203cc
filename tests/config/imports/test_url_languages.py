"""Laws of URL expressions: hosts and paths stand for one only if every URL with them matches."""

import pytest

from claude_proxy.config.imports.languages import URL_CHARS
from claude_proxy.config.imports.posix_regex import parse
from claude_proxy.config.imports.url_languages import UrlExpression
from claude_proxy.policy.patterns import HostPattern, PathGlob
from claude_proxy.policy.request import Scheme

EVERY = HostPattern.every()


def _expression(text: str, *, of_path: bool = False, as_sent: bool = False) -> UrlExpression:
    expr = parse(text, extended=True, ignore_case=False, alphabet=URL_CHARS)
    return UrlExpression(expr, of_path=of_path, as_sent=as_sent)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (r"^/v1/", ["/v1/", "/v1/x", "/v1/x/y"], ["/v1", "/v1x/y", "/"]),
        (r"^/v1", ["/v1", "/v1/", "/v1x/y"], ["/v", "/"]),
        (r"^/v1(/|$)", ["/v1/x"], ["/v1x"]),
        (r"^/v1/x(\?|$)", ["/v1/x"], ["/v1/x/y", "/v1/xx"]),
    ],
)
def test_paths_of_an_expression_are_those_that_begin_so(
    text: str, inside: list[str], outside: list[str]
) -> None:
    parts = _expression(text, of_path=True).parts(Scheme.HTTP, EVERY, any_port=True)

    globs = [PathGlob(glob) for _, found in parts for glob in found or ()]
    assert all(any(glob.matches(path) for glob in globs) for path in inside)
    assert not any(glob.matches(path) for glob in globs for path in outside)


def test_an_end_that_a_query_would_move_is_no_path() -> None:
    assert list(_expression("^/x$", of_path=True).parts(Scheme.HTTP, EVERY, any_port=True)) == []


def test_hosts_and_paths_of_a_url_are_found() -> None:
    found = _expression(r"^https?://([a-z_0-9-]+\.)*b\.org/v1/")

    parts = list(found.parts(Scheme.HTTP, EVERY, any_port=False))

    assert [(str(host), globs) for host, globs in parts] == [(".b.org", ("/v1/", "/v1/*/**"))]
    assert not list(found.parts(Scheme.HTTP, EVERY, any_port=True))


def test_the_usual_port_may_be_sent() -> None:
    found = _expression(r"^http://a\.com/", as_sent=True)

    assert not found.covers(Scheme.HTTP, HostPattern.parse("a.com"), None, any_port=False)


def test_all_paths_that_may_match_are_within_the_bound() -> None:
    host = HostPattern.parse("a.com")

    assert _expression(r"^/v1/", of_path=True).bound(Scheme.HTTP, host) == ("/v1/**",)
    assert _expression(r"\.exe$", of_path=True).bound(Scheme.HTTP, host) is None


def test_an_expression_that_cannot_be_read_may_match_anything() -> None:
    found = UrlExpression(None, of_path=False)

    assert not found.is_known
    assert found.may_match(Scheme.HTTP, EVERY, None)
    assert not found.covers(Scheme.HTTP, EVERY, None)
