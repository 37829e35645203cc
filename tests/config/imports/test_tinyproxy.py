"""Laws of `import tinyproxy`: what the filter stops is denied, and what is lost is told."""

import random
import re
from fnmatch import fnmatchcase
from itertools import product

import pytest

from claude_proxy.config.imports import tinyproxy
from claude_proxy.config.imports.draft import Draft
from claude_proxy.errors import ConfigError
from tests.config.imports import squid_model
from tests.config.imports.files import Texts
from tests.config.imports.squid_model import Target, policy_allows


def _converted(settings: str, lines: str) -> Draft:
    text = f'Port 8888\nFilter "filter"\n{settings}'
    return tinyproxy.convert(text, name="t.conf", library=Texts(filter=lines))


def _allows(draft: Draft, host: str, scheme: str = "https", port: int | None = None) -> bool:
    number = port or squid_model.DEFAULT_PORT[scheme]
    return policy_allows(draft.policy(), Target(scheme, host, number, "GET", "/"))


def _told(draft: Draft) -> str:
    return "\n".join(map(str, draft.remarks))


ERE = "FilterDefaultDeny Yes\nFilterExtended On\n"


def test_anchored_lines_become_hosts_and_domains() -> None:
    draft = _converted(ERE, "# names\n^api\\.a\\.com$\n(^|\\.)b\\.org$  # all of it\n\\.c\\.net$\n")

    assert [str(each.pattern) for each in draft.allow][:3] == ["api.a.com", ".b.org", "*.c.net"]
    assert _allows(draft, "x.b.org", "http")
    assert not _allows(draft, "c.net")
    assert "filter:2" in draft.text()


def test_an_unanchored_line_is_narrower_and_says_so() -> None:
    draft = _converted(ERE, "a.com\n")

    assert _allows(draft, "www.a.com")
    assert not _allows(draft, "xa.com")
    assert "narrower: filter:1: a.com also matches other names than .a.com" in _told(draft)


def test_a_basic_expression_has_no_groups() -> None:
    draft = _converted("FilterDefaultDeny Yes\n", "(^|\\.)a\\.com$\n")

    assert not draft.allow
    assert "(^|\\.)a\\.com$ matches no host" in _told(draft)


def test_file_patterns_match_whole_names() -> None:
    draft = _converted("FilterDefaultDeny Yes\nFilterType fnmatch\n", "*.a.com\na.com\nx?.b.org\n")

    assert _allows(draft, "x.y.a.com")
    assert _allows(draft, "a.com")
    assert not _allows(draft, "a.com.b.org")
    assert "x?.b.org" in _told(draft)


def test_without_a_filter_or_a_default_everything_passes_but_what_is_listed() -> None:
    draft = _converted("FilterExtended On\n", "(^|\\.)ads\\.com$\n")

    assert _allows(draft, "a.com")
    assert not _allows(draft, "x.ads.com")
    assert "no private or local address" in _told(draft)


def test_a_list_of_words_that_no_entry_can_deny_opens_nothing() -> None:
    draft = _converted("FilterExtended On\n", "casino\n")

    assert "default: deny" in draft.text()
    assert not draft.allow
    assert "casino denies a part of every host" in _told(draft)


def test_connect_ports_limit_tls() -> None:
    draft = _converted(f"{ERE}ConnectPort 443\nConnectPort 8443\n", "^a\\.com$\n")

    assert _allows(draft, "a.com", port=8443)
    assert not _allows(draft, "a.com", port=9443)


def test_connect_port_zero_is_no_port() -> None:
    draft = _converted(f"{ERE}ConnectPort 0\n", "^a\\.com$\n")

    assert not _allows(draft, "a.com")
    assert _allows(draft, "a.com", "http")


def test_who_may_ask_is_told() -> None:
    draft = _converted(f"{ERE}Allow 10.0.0.0/8\nBasicAuth me secret\n", "^a\\.com$\n")

    assert "t.conf:5: Allow says which clients may ask" in _told(draft)
    assert "secret" not in _told(draft)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("FilterDefaultDeny Perhaps\n", "neither yes nor no"),
        ("FilterType glob\n", "no type of filter"),
        ("ConnectPort https\n", "is not a port"),
        ("^a\\.com$\n", "no line of tinyproxy.conf"),
        ('Filter "gone"\n', "cannot be read"),
    ],
)
def test_what_tinyproxy_would_refuse_is_an_error(settings: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        _converted(settings, "^a\\.com$\n")


_HOSTS = ("a.com", "x.a.com", "y.x.a.com", "xa.com", "b.org", "x.b.org", "a.com.net", "_u.a.com",
          "c.net", "10.1.2.3")  # fmt: skip
_LINES = [r"a\.com$", r"(^|\.)a\.com$", r"^([a-z]+\.)?b\.org$", r"\.a\.com$", "x", r"^a\.com$",
          "b.org", r"^[^.]+\.a\.com$", r"(a\.com|b\.org)$", "^c.net$", "^http://a\\.com/v1/",
          r"^a\.com:443$", "com:"]  # fmt: skip
_GLOBS = ["*.a.com", "a.com", "*a.com", "x.*", "?.a.com", "*", "*b.org"]


def _passes(lines: list[str], target: Target, kind: str, *, urls: bool, default_deny: bool) -> bool:
    """Decide as tinyproxy's manual has it."""
    text = target.host
    if urls and target.scheme == "http":
        port = "" if target.port == 80 else f":{target.port}"
        text = f"http://{target.host}{port}{target.path}"
    elif urls:
        text = f"{target.host}:{target.port}"
    found = any(
        fnmatchcase(text, line) if kind == "fnmatch" else re.search(line, text) for line in lines
    )
    return found is default_deny


@pytest.mark.parametrize("seed", range(40))
def test_nothing_passes_that_the_filter_stops_and_nothing_is_lost_silently(seed: int) -> None:
    choose = random.Random(seed)
    kind = choose.choice(["ere", "ere", "fnmatch"])
    lines = choose.sample(_GLOBS if kind == "fnmatch" else _LINES, choose.randint(1, 4))
    urls, default_deny = choose.random() < 0.3, choose.random() < 0.6
    settings = f"FilterType {kind}\nFilterURLs {'On' if urls else 'Off'}\n"
    settings += f"FilterDefaultDeny {'Yes' if default_deny else 'No'}\n"

    draft = _converted(settings, "\n".join(lines))

    policy = draft.policy()
    for scheme, host, port, path in product(
        ("http", "https"), _HOSTS, (80, 443, 8080), ("/", "/v1/x", "/b.org")
    ):
        if port == squid_model.DEFAULT_PORT["https" if scheme == "http" else "http"]:
            continue
        target = Target(scheme, host, port, "GET", path)
        passes = _passes(lines, target, kind, urls=urls, default_deny=default_deny)
        allowed = policy_allows(policy, target)
        assert passes or not allowed, (target, settings, lines, draft.text())
        if passes and not allowed:
            assert draft.remarks, (target, settings, lines, draft.text())
