"""Laws of domain entries: exact names, wildcards, ports, and denials first."""

import pytest

from claude_proxy.config.imports import domain_entries
from claude_proxy.config.imports.draft import Draft
from claude_proxy.policy.location import Location

PLACE = Location("f", 1, 1)


def _read(*texts: str, denied: bool = False) -> tuple[list[domain_entries.DomainEntry], Draft]:
    draft = Draft("f", "test")
    entries = domain_entries.read([(text, PLACE) for text in texts], draft, denied=denied)
    return entries, draft


def test_a_port_after_a_host_is_one() -> None:
    entries, _ = _read("A.com:8443", "[2001:db8::1]:443", "2001:db8::1", "*.b.org")

    assert [(str(each.pattern), each.port) for each in entries] == [
        ("a.com", 8443),
        ("2001:db8::1", 443),
        ("2001:db8::1", None),
        ("*.b.org", None),
    ]


def test_every_host_can_be_denied_and_not_allowed() -> None:
    assert not _read("*")[0]
    assert len(_read("*", "*:22", denied=True)[0]) == 2


def test_a_denied_pattern_that_no_entry_can_be_still_takes() -> None:
    (denied,), draft = _read("*.ru", denied=True)
    allowed, _ = _read("a.ru", "b.org")

    domain_entries.convert(allowed, [denied], draft, plain_http=False)

    assert [str(each.pattern) for each in draft.allow] == ["b.org"]


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.0.0.1", "fc00::/7"])
def test_addresses_and_networks_are_read(text: str) -> None:
    assert str(domain_entries.network_of(text)).startswith(text.partition("/")[0])
