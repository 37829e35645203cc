"""Laws of conditions on a host: what is left is what the condition says, or less, and then told."""

from claude_proxy.config.imports.host_languages import HostExpression
from claude_proxy.config.imports.host_tests import EVERY, HostTest, Item, PatternIndex, is_writable
from claude_proxy.config.imports.languages import URL_CHARS
from claude_proxy.config.imports.posix_regex import parse
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, PatternKind

PLACE = Location("f", 1, 1)


def _item(text: str) -> Item:
    if text.startswith("/"):
        expr = parse(text[1:], extended=True, ignore_case=True, alphabet=URL_CHARS)
        return Item(text, PLACE, expression=HostExpression(expr))
    return Item(text, PLACE, pattern=HostPattern.parse(text))


def _test(*texts: str) -> HostTest:
    return HostTest(map(_item, texts))


def _patterns(*texts: str) -> list[HostPattern]:
    return [HostPattern.parse(text) for text in texts]


def test_where_it_has_to_hold_the_narrower_of_two_is_left() -> None:
    found = _test(".a.com", "b.org").kept(_patterns("x.a.com", ".b.org", "c.net"))

    assert list(map(str, found.hosts)) == ["x.a.com", "b.org"]
    assert not found.losses


def test_of_every_host_its_values_are_left() -> None:
    found = _test(".a.com", r"/\.b\.org$", "/x").kept([EVERY])

    assert list(map(str, found.hosts)) == [".a.com", "*.b.org"]
    assert len(found.losses) == 1


def test_where_it_must_not_hold_a_part_is_denied() -> None:
    found = _test("x.a.com", ".c.net").left(_patterns(".a.com", "y.c.net", "b.org"))

    assert list(map(str, found.hosts)) == [".a.com", "b.org"]
    assert [str(host) for host, _ in found.denied] == ["x.a.com"]


def test_a_part_that_no_entry_can_deny_takes_all_but_the_name() -> None:
    found = _test("/ads").left(_patterns(".a.com", "*.b.org", "ads.c.net", "c.net"))

    assert list(map(str, found.hosts)) == ["a.com", "c.net"]
    assert len(found.losses) == 2


def test_addresses_of_names_are_denied_and_not_known_otherwise() -> None:
    test = _test("10.0.0.0/8")

    assert [str(host) for host, _ in test.left(_patterns("a.com")).denied] == ["10.0.0.0/8"]
    assert not test.kept(_patterns("a.com")).hosts
    assert list(map(str, test.kept(_patterns("10.1.2.3")).hosts)) == ["10.1.2.3"]


def test_what_no_file_can_hold_is_not_writable() -> None:
    assert is_writable(HostPattern.parse(".a.com"))
    assert not is_writable(EVERY)
    assert not is_writable(HostPattern(PatternKind.DOMAIN, "com"))


def test_patterns_are_found_around_and_inside() -> None:
    index = PatternIndex((each, str(each)) for each in _patterns(".a.com", "x.a.com", "*.x.a.com"))

    assert {text for _, text in index.around(HostPattern.parse("y.x.a.com"))} == {
        ".a.com",
        "*.x.a.com",
    }
    assert {text for _, text in index.inside(HostPattern.parse("*.a.com"))} == {
        "x.a.com",
        "*.x.a.com",
    }
