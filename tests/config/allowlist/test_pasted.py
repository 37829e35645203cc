"""Laws of pasted targets: each text has one reading, or an error that says what to write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.allowlist.pasted import Pasted, SshAddress, parse
from claude_proxy.policy.patterns import PatternError
from claude_proxy.policy.request import Scheme

READINGS = {
    "docs.test": Pasted("docs.test"),
    " docs.test ": Pasted("docs.test"),
    "<https://docs.test/>": Pasted("docs.test", has_scheme=True),
    '"https://docs.test/"': Pasted("docs.test", has_scheme=True),
    "'docs.test'": Pasted("docs.test"),
    "`docs.test`": Pasted("docs.test"),
    "\u201c<https://docs.test/>\u201d": Pasted("docs.test", has_scheme=True),
    "data:8080": Pasted("data", port=8080),
    "docs.test/a/b": Pasted("docs.test", path="/a/b"),
    "docs.test:8443/a": Pasted("docs.test", port=8443, path="/a"),
    "HTTPS://docs.test/a?b=c#d": Pasted("docs.test", path="/a", has_scheme=True, has_more=True),
    "http://docs.test": Pasted("docs.test", Scheme.HTTP, 80, has_scheme=True),
    "wss://docs.test/s": Pasted("docs.test", path="/s", has_scheme=True, websocket=True),
    "ws://docs.test": Pasted("docs.test", Scheme.HTTP, 80, has_scheme=True, websocket=True),
    "10.0.0.0/8": Pasted("10.0.0.0/8"),
    "2001:db8::1": Pasted("2001:db8::1"),
    "2001:db8::/32": Pasted("2001:db8::/32"),
    "https://[2001:db8::1]:8443/a": Pasted("2001:db8::1", port=8443, path="/a", has_scheme=True),
    "git@forge.test:o/r.git": SshAddress("forge.test", 22, "/o/r.git"),
    "ssh://git@forge.test:2222/o/r": SshAddress("forge.test", 2222, "/o/r"),
    "git://forge.test/o/r": SshAddress("forge.test", 9418, "/o/r"),
}


@pytest.mark.parametrize(("text", "reading"), READINGS.items(), ids=READINGS.keys())
def test_what_people_paste_is_taken_apart(text: str, reading: Pasted | SshAddress) -> None:
    assert parse(text) == reading


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("ftp://docs.test/", "https://"),
        ("javascript:1", "https://"),
        ("mailto:me@docs.test", "https://"),
        ("data:text/html,x", "https://"),
        ("docs.test:", "no colon"),
        ("docs.test:99999", "65535"),
        ("docs.test:0", "65535"),
        ("", "name the host"),
        ("https://", "host"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_a_fix(text: str, fix: str) -> None:
    with pytest.raises(PatternError) as caught:
        parse(text)

    assert fix in caught.value.fix


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(PatternError) as caught:
        parse("https://me:hunter2@docs.test/a")

    assert "hunter2" not in str(caught.value)
    assert caught.value.fix == "write https://docs.test/a"


@pytest.mark.parametrize(
    "url",
    [
        "postgres://me:hunter2@db.test/shop",
        "postgres://me:hunter2@db.test:99999",
        "postgres://me:hunter2@db.test:",
        "postgresql://me:hunter2@a.test:1,b.test:2/shop",
        "me:hunter2@",
    ],
)
def test_a_password_in_a_text_that_is_refused_is_not_repeated(url: str) -> None:
    with pytest.raises(PatternError) as caught:
        parse(url)

    assert "hunter2" not in f"{caught.value.what} {caught.value.fix}"


def test_a_repository_is_named_by_its_https_address() -> None:
    found = parse("git@forge.test:o/r.git")

    assert isinstance(found, SshAddress)
    assert found.https_url == "https://forge.test/o/r.git"


@given(st.text())
def test_any_text_is_read_or_a_pattern_error(text: str) -> None:
    try:
        found = parse(text)
    except PatternError:
        return

    assert 1 <= found.port <= 65535
