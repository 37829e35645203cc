"""Laws of `import srt`: what sandbox-runtime denies is denied, and what is lost is told."""

import json
import random
from typing import Any

import pytest

from claude_proxy.config.imports import srt
from claude_proxy.config.imports.draft import Draft
from claude_proxy.errors import ConfigError
from tests.config.imports import squid_model
from tests.config.imports.squid_model import Target, policy_allows


def _converted(network: dict[str, Any], *, plain_http: bool = False, **more: Any) -> Draft:
    text = json.dumps({"network": network, **more}, indent=2)
    return srt.convert(text, name="srt.json", plain_http=plain_http)


def _allows(draft: Draft, host: str, scheme: str = "https", port: int | None = None) -> bool:
    number = port or squid_model.DEFAULT_PORT[scheme]
    return policy_allows(draft.policy(), Target(scheme, host, number, "GET", "/"))


def _told(draft: Draft) -> str:
    return "\n".join(map(str, draft.remarks))


def test_domains_are_exact_and_wildcards_are_for_what_is_below() -> None:
    draft = _converted({"allowedDomains": ["a.com", "*.b.org"], "deniedDomains": ["x.b.org"]})

    assert _allows(draft, "a.com")
    assert _allows(draft, "y.z.b.org")
    for host in ("www.a.com", "b.org", "x.b.org", "c.net"):
        assert not _allows(draft, host)
    assert "narrower: srt.json:4: entries without a port" in _told(draft)


def test_plain_http_is_carried_over_where_it_is_wanted() -> None:
    network = {"allowedDomains": ["a.com", "b.org:443", "c.net:80"], "deniedDomains": []}

    quiet, plain = _converted(network), _converted(network, plain_http=True)

    assert not _allows(quiet, "a.com", "http")
    assert '"c.net:80" is for plain HTTP' in _told(quiet)
    assert _allows(plain, "a.com", "http")
    assert not _allows(plain, "b.org", "http")
    assert _allows(plain, "c.net", "http")
    assert not _allows(plain, "c.net")


def test_ports_and_addresses_are_kept() -> None:
    draft = _converted(
        {
            "allowedDomains": ["a.com:8443", "[2001:db8::1]:443", "192.0.2.1"],
            "deniedDomains": ["192.0.2.1:443"],
            "deniedResolvedAddresses": ["198.51.100.0/24", "nonsense"],
        }
    )

    assert _allows(draft, "a.com", port=8443)
    assert not _allows(draft, "a.com")
    assert _allows(draft, "2001:db8::1")
    assert not _allows(draft, "192.0.2.1")
    assert "198.51.100.0/24" in draft.text()
    assert '"nonsense" is neither an address' in _told(draft)


@pytest.mark.parametrize("entry", ["*.com", "*", "*.github.io", ".npmjs.org", "https://a.com",
                                   "localhost", "a.com/x", "a b.com"])  # fmt: skip
def test_what_no_entry_can_say_is_told_and_opens_nothing(entry: str) -> None:
    draft = _converted({"allowedDomains": [entry], "deniedDomains": []})

    assert not draft.allow
    assert "not carried over: srt.json:4" in _told(draft)


def test_a_denial_that_no_entry_can_say_takes_what_it_covers() -> None:
    draft = _converted({"allowedDomains": ["a.ru", "b.org", "c.org:22"],
                        "deniedDomains": ["*.ru", "*:22"]})  # fmt: skip

    assert [str(each.pattern) for each in draft.allow] == ["b.org"]


def test_a_denial_of_everything_leaves_nothing() -> None:
    assert not _converted({"allowedDomains": ["a.com"], "deniedDomains": ["*"]}).allow


def test_other_keys_are_told_with_what_does_the_same() -> None:
    draft = _converted(
        {"allowedDomains": [], "deniedDomains": [], "allowLocalBinding": True,
         "allowUnixSockets": ["/x"], "allowAllUnixSockets": False, "unheard": 1},
        filesystem={"denyRead": ["~/.ssh"], "denyWrite": []},
        ignoreViolations={"*": ["/x"]},
    )  # fmt: skip

    for key in ("network.allowLocalBinding", "network.allowUnixSockets", "network.unheard",
                "filesystem.denyRead", "ignoreViolations"):  # fmt: skip
        assert f"{key}: " in _told(draft)
    assert "allowAllUnixSockets" not in _told(draft)


@pytest.mark.parametrize("network", [[], {"allowedDomains": "a.com"}, {"allowedDomains": [1]}])
def test_settings_of_another_form_are_an_error(network: Any) -> None:
    with pytest.raises(ConfigError, match="not what it should be"):
        _converted(network)


_ENTRIES = ["a.com", "*.a.com", "x.a.com", "*.x.a.com", "b.org", "a.com:443", "*.a.com:8443",
            "x.a.com:80", "192.0.2.1"]  # fmt: skip
_HOSTS = ["a.com", "x.a.com", "y.x.a.com", "xa.com", "b.org", "x.b.org", "192.0.2.1"]


def _matches(entry: str, host: str, port: int) -> bool:
    """Match as sandbox-runtime's README has it."""
    pattern, _, wanted = entry.partition(":")
    if wanted and int(wanted) != port:
        return False
    if pattern == "*":
        return True
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_allowed_that_the_lists_deny_and_nothing_lost_silently(seed: int) -> None:
    choose = random.Random(seed)
    allowed = choose.sample(_ENTRIES, choose.randint(0, 5))
    denied = choose.sample([*_ENTRIES, "*:8443", "*:80"], choose.randint(0, 3))

    draft = _converted(
        {"allowedDomains": allowed, "deniedDomains": denied}, plain_http=choose.random() < 0.5
    )

    policy = draft.policy()
    for scheme in ("http", "https"):
        for host in _HOSTS:
            for port in (80, 443, 8443):
                target = Target(scheme, host, port, "GET", "/")
                passes = any(_matches(each, host, port) for each in allowed)
                passes = passes and not any(_matches(each, host, port) for each in denied)
                here = policy_allows(policy, target)
                assert passes or not here, (target, allowed, denied, draft.text())
                if passes and not here:
                    assert draft.remarks, (target, allowed, denied, draft.text())
