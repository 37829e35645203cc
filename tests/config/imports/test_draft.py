"""Laws of drafts: what is written is read back as the same rules, and nothing can break out."""

from ipaddress import ip_network

from claude_proxy.config.imports.draft import NARROWER, Draft, Entry
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.request import Scheme

PLACE = Location("f", 1, 1)


def test_entries_are_read_back_as_they_are() -> None:
    draft = Draft("f", "test")
    draft.allow += [
        Entry(HostPattern.parse("*.a.com"), PLACE, Scheme.HTTPS),
        Entry(HostPattern.parse("2001:db8::1"), PLACE, Scheme.HTTPS, frozenset({8443})),
        Entry(HostPattern.parse("b.org"), PLACE, Scheme.HTTP,
              methods=frozenset({"GET", "M-SEARCH"}), paths=("/a/*", "/b/**")),
        Entry(HostPattern.parse("c.net"), PLACE, addresses=(ip_network("10.0.0.0/8"),)),
    ]  # fmt: skip
    draft.deny += [Entry(HostPattern.parse("x.a.com"), PLACE, Scheme.HTTPS)]

    policy = draft.policy()

    assert [str(rule) for rule in policy.allow] == [
        "https://*.a.com ports 443",
        "https://2001:db8::1 ports 8443",
        "http://b.org ports 80 methods GET,M-SEARCH paths /a/*,/b/**",
        "https://c.net ports 443 addresses 10.0.0.0/8",
    ]
    assert [str(rule) for rule in policy.deny] == ["https://x.a.com"]


def test_equal_entries_are_written_once() -> None:
    draft = Draft("f", "test")
    draft.allow += [Entry(HostPattern.parse("a.com"), Location("f", line, 1)) for line in (1, 2)]

    assert draft.text().count("a.com") == 1


def test_names_of_files_cannot_add_lines() -> None:
    draft = Draft("f\nallow: [evil.com]", "test")
    draft.allow.append(Entry(HostPattern.parse("a.com"), Location("g\n  - evil.com", 1, 1)))

    assert [rule.name for rule in draft.policy().allow] == ["a.com"]


def test_remarks_are_in_the_order_of_the_file_and_each_is_there_once() -> None:
    draft = Draft("f", "test")
    for line in (3, 1, 3):
        draft.remark(NARROWER, "less", Location("f", line, 1), "nothing")
    draft.remark_once(NARROWER, "said", PLACE, "nothing")
    draft.remark_once(NARROWER, "said", Location("f", 9, 1), "nothing")

    assert [each.source.line for each in draft.remarks] == [1, 1, 3]
    assert str(draft.remarks[2]) == "narrower: f:3: less; fix: nothing"
