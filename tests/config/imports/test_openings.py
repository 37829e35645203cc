"""Laws of openings: a denial takes what it covers, and where that cannot be said, more."""

from claude_proxy.config.imports.host_tests import HostTest, Item
from claude_proxy.config.imports.openings import (
    HostIs,
    Literal,
    MethodIs,
    Opening,
    PortIs,
    both,
    limited,
    without,
)
from claude_proxy.config.imports.port_sets import PortSet
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.request import Scheme

PLACE = Location("f", 1, 1)


def _hosts(*texts: str) -> HostIs:
    return HostIs(HostTest(Item(each, PLACE, pattern=HostPattern.parse(each)) for each in texts))


def _opening(*texts: str) -> Opening:
    return Opening(Scheme.HTTP, PLACE, tuple(HostPattern.parse(each) for each in texts))


WEB = PortIs(PortSet.single(80, 443))
POST = MethodIs(frozenset({"POST"}))


def test_conditions_narrow_an_opening() -> None:
    found = limited([Opening(Scheme.HTTP, PLACE)], [Literal(_hosts(".a.com")), Literal(WEB)])

    (left,) = found.openings
    assert (list(map(str, left.hosts)), str(left.ports)) == ([".a.com"], "80, 443")
    assert left.is_limited
    assert not left.is_whole


def test_a_denial_of_other_requests_takes_nothing() -> None:
    opening = _opening("a.com")

    assert without(opening, [Literal(_hosts("b.org")), Literal(POST)], PLACE).openings == [opening]


def test_a_denial_of_all_takes_all() -> None:
    assert not without(_opening("a.com"), [Literal(_hosts(".a.com"))], PLACE).openings
    assert not without(_opening("a.com"), [], PLACE).openings


def test_what_is_not_of_a_set_of_ports_is_taken() -> None:
    (left,) = without(_opening("a.com"), [Literal(WEB, negated=True)], PLACE).openings

    assert str(left.ports) == "80, 443"


def test_conditions_together_become_a_denial_of_both() -> None:
    found = without(_opening(".a.com"), [Literal(_hosts("x.a.com")), Literal(POST)], PLACE)

    (denial,) = found.openings[0].denials
    assert (str(denial.pattern), denial.methods) == ("x.a.com", frozenset({"POST"}))


def test_conditions_that_no_entry_can_hold_together_take_more_and_are_told() -> None:
    literals = [Literal(_hosts(".b.org"), negated=True), Literal(POST)]

    found = without(_opening(".a.com", ".b.org"), literals, PLACE)

    assert all("POST" not in each.methods for each in found.openings)
    assert found.losses


def test_both_of_two_openings_is_what_they_share() -> None:
    one, other = _opening(".a.com", "b.org"), _opening("x.a.com")

    assert [list(map(str, each.hosts)) for each in both(one, other).openings] == [["x.a.com"]]
    assert not both(one, _opening("c.net")).openings
