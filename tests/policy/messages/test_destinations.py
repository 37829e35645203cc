"""The URLs that the API may be asked to fetch or connect to."""

import pytest

from claude_proxy.policy.messages.destinations import EVERYWHERE, DestinationScope
from claude_proxy.policy.patterns import HostPattern

HOSTS = DestinationScope(hosts=(HostPattern.parse("one.test"), HostPattern.parse(".all.test")))


class Allowing:
    """Stands in for an allowlist of hosts, and writes down what it was asked."""

    def __init__(self, *patterns: str) -> None:
        self._hosts = DestinationScope(
            allowlisted=False, hosts=tuple(map(HostPattern.parse, patterns))
        )
        self.asked: list[tuple[str, str]] = []

    def __call__(self, url: str, method: str = "GET") -> bool:
        self.asked.append((url, method))
        return self._hosts.allows(url, method, self)


nothing = Allowing()


@pytest.mark.parametrize(
    "url",
    [
        *("https://one.test", "https://one.test/", "https://one.test:443/a?b#c"),
        *("https://ONE.test/", "https://one.test./", "https://a.b.all.test/x", "https://all.test"),
    ],
)
def test_a_listed_host_is_reached_over_https(url: str) -> None:
    assert HOSTS.allows(url, "GET", nothing)


@pytest.mark.parametrize(
    "url",
    [
        *("", "https://", "one.test", "//one.test/", "http://one.test/", "ftp://one.test/"),
        *("HTTPS://one.test/", " https://one.test/", "https://one.test/\n", "https://one.test/ a"),
        *("https://a.one.test/", "https://xall.test/", "https://one.test:8443/"),
        *("https://one.test:0443/", "https://one.test@evil.test/", "https://evil.test#one.test"),
        *("https://evil.test\\@one.test/", "https://evil.test/@one.test/", "https:/one.test/"),
        *("https://one%2etest/", "https://\uff4fne.test/", "https://[::1]/", "file:///one.test"),
        "https://one.test.evil.test/",
    ],
)
def test_what_is_not_plainly_a_listed_host_is_not_reached(url: str) -> None:
    assert not HOSTS.allows(url, "GET", nothing)


def test_the_allowlist_is_asked_about_the_very_url_and_method() -> None:
    reaches = Allowing("a.test")

    assert DestinationScope().allows("https://a.test/b?c", "POST", reaches)
    assert reaches.asked == [("https://a.test/b?c", "POST")]


def test_an_invalid_url_is_only_allowed_where_everything_is() -> None:
    assert EVERYWHERE.allows(None, "GET", nothing)
    assert not DestinationScope().allows(None, "GET", Allowing(".test"))


def test_a_scope_without_entries_is_empty() -> None:
    assert DestinationScope(allowlisted=False).is_empty
    assert not any(reach.is_empty for reach in (EVERYWHERE, DestinationScope(), HOSTS))


def test_a_domain_is_reached_if_each_name_below_it_is() -> None:
    assert DestinationScope().allows_domain("a.test", Allowing(".a.test"))
    assert DestinationScope().allows_domain("a.test/path", Allowing("a.test", "*.a.test"))
    assert not DestinationScope().allows_domain("a.test", Allowing("a.test"))
    assert not DestinationScope().allows_domain("a.test", Allowing("*.a.test"))
    assert HOSTS.allows_domain("all.test", nothing)
    assert not HOSTS.allows_domain("one.test", nothing)


@pytest.mark.parametrize(
    "domain",
    [
        "",
        "test",
        "*.a.test",
        "a.test:443",
        "https://a.test",
        "A.test",
        "a.test?b",
        "[::1]",
        "a..test",
    ],
)
def test_what_is_not_plainly_a_domain_is_not_reached(domain: str) -> None:
    assert not DestinationScope().allows_domain(domain, Allowing(".a.test", "a.test"))
