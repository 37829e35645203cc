"""Laws of `import hosts`: names are allowed, null addresses deny, and what is odd is told."""

import pytest

from claude_proxy.config.imports import hosts
from claude_proxy.config.imports.draft import Draft
from claude_proxy.errors import ConfigError
from tests.config.imports.squid_model import Target, policy_allows


def _converted(text: str, *, deny: bool = False, plain_http: bool = False) -> Draft:
    return hosts.convert(text, name="list", deny=deny, plain_http=plain_http)


def _allows(draft: Draft, host: str, scheme: str = "https", port: int = 443) -> bool:
    return policy_allows(draft.policy(), Target(scheme, host, port, "GET", "/"))


def _told(draft: Draft) -> str:
    return "\n".join(map(str, draft.remarks))


def test_names_alone_are_allowed() -> None:
    draft = _converted("# mine\nA.com\n*.b.org   # below\n.c.net\n\nhttps://d.com/\ne.com:8443\r\n")

    for host in ("a.com", "x.b.org", "c.net", "d.com"):
        assert _allows(draft, host)
    assert _allows(draft, "e.com", port=8443)
    for host in ("www.a.com", "b.org", "e.com"):
        assert not _allows(draft, host)


def test_names_with_a_null_address_are_denied() -> None:
    draft = _converted(
        "127.0.0.1 localhost\n::1 ip6-localhost ip6-loopback\n0.0.0.0 0.0.0.0\n"
        "0.0.0.0 ads.com  track.com\n127.0.0.1\tmore.com # x\n:: six.com\na.com\n"
    )

    denied = [str(each.pattern) for each in draft.deny]
    assert denied == ["ads.com", "track.com", "more.com", "six.com"]
    assert _allows(draft, "a.com")


def test_a_name_with_a_private_address_may_have_it() -> None:
    draft = _converted("10.1.2.3 git.corp.example\n93.184.216.34 www.a.com\n")

    assert '{host: git.corp.example, addresses: ["10.1.2.3"]}' in draft.text()
    assert "- www.a.com\n" in draft.text()


def test_no_name_gets_the_address_of_a_metadata_service() -> None:
    draft = _converted("169.254.169.254 meta.example\na.com\n")

    assert [str(each.pattern) for each in draft.allow] == ["a.com"]
    assert "169.254.169.254 is the metadata service" in _told(draft)


def test_a_blocklist_is_denied_as_a_whole_where_that_is_wanted() -> None:
    draft = _converted("ads.com\n*.track.com\n", deny=True)

    assert not draft.allow
    assert [str(each.pattern) for each in draft.deny] == ["ads.com", "*.track.com"]
    assert "the list only denies" in _told(draft)


def test_usual_forms_of_blocklists_are_understood() -> None:
    draft = _converted(
        "[Adblock Plus 2.0]\n! Title: x\n||ads.com^\n||track.com^$third-party\n"
        "address=/bad.com/0.0.0.0\nlocal=/worse.com/\n!evil.com\n@@||good.com^\n"
    )

    denied = [str(each.pattern) for each in draft.deny]
    assert denied == [".ads.com", ".track.com", ".bad.com", ".worse.com", "evil.com"]
    assert "@@||good.com^" in _told(draft)


def test_plain_http_is_allowed_where_it_is_wanted() -> None:
    draft = _converted("a.com\nhttp://b.org\n", plain_http=True)

    assert _allows(draft, "a.com", "http", 80)
    assert _allows(draft, "b.org", "http", 80)
    assert not _allows(draft, "b.org")


@pytest.mark.parametrize(
    "line",
    ["com", "*.com", "*", "a b", "https://a.com/x", "ftp://a.com", "localhost", "(^|\\.)a\\.com$",
     "a..com", "*.github.io", "0.0.0.0 *.a.com", "a.com,b.org", "\u0430pple.com"],
)  # fmt: skip
def test_what_is_no_host_opens_nothing_and_is_told(line: str) -> None:
    draft = _converted(f"ok.com\n{line}\n")

    assert [str(each.pattern) for each in draft.allow] == ["ok.com"]
    assert not draft.deny
    assert "not carried over: list:2: " in _told(draft)


def test_a_host_that_is_on_both_sides_is_denied_and_told() -> None:
    draft = _converted("a.com\n0.0.0.0 a.com\n")

    assert not _allows(draft, "a.com")
    assert "narrower: list:1: a.com is denied as well (list:2)" in _told(draft)


def test_a_list_without_hosts_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no hosts"):
        _converted("# nothing\n\n")
