"""Laws of emission: entries allow what openings do, or less, and then it is told."""

from claude_proxy.config.imports.draft import Draft
from claude_proxy.config.imports.emission import emit
from claude_proxy.config.imports.openings import ALL_METHODS, Denial, Opening
from claude_proxy.config.imports.port_sets import PortSet
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.request import Scheme

PLACE, OTHER = Location("f", 1, 1), Location("f", 2, 1)
A, X = HostPattern.parse(".a.com"), HostPattern.parse("x.a.com")


def _emitted(*openings: Opening) -> Draft:
    draft = Draft("f", "test")
    emit(openings, draft)
    return draft


def test_the_usual_port_is_kept_of_all_and_told() -> None:
    draft = _emitted(Opening(Scheme.HTTPS, PLACE, (A,)))

    assert draft.allow[0].ports == frozenset({443})
    assert "an entry for https lists 443" in str(draft.remarks[0])


def test_ports_of_the_other_scheme_are_left_out() -> None:
    assert not _emitted(Opening(Scheme.HTTPS, PLACE, (A,), PortSet.single(80))).allow


def test_every_host_is_opened_only_without_limits() -> None:
    whole = [Opening(scheme, PLACE) for scheme in Scheme]

    assert _emitted(*whole).allows_by_default
    assert not _emitted(whole[0]).allows_by_default
    assert not _emitted(*whole[1:], Opening(Scheme.HTTPS, PLACE, ports=PortSet.single(443))).allow


def test_methods_of_an_open_set_are_the_ordinary_ones() -> None:
    draft = _emitted(Opening(Scheme.HTTP, PLACE, (A,), methods=ALL_METHODS - {"POST"}))

    assert draft.allow[0].methods == frozenset({"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"})


def test_a_denial_of_one_opening_that_hits_another_is_told() -> None:
    draft = _emitted(
        Opening(Scheme.HTTPS, PLACE, (A,), PortSet.single(443), denials=(Denial(X, OTHER),)),
        Opening(Scheme.HTTPS, OTHER, (X,), PortSet.single(443)),
    )

    assert [str(each.pattern) for each in draft.deny] == ["x.a.com"]
    assert "which also takes from this line" in str(draft.remarks[0])


def test_a_denial_of_one_scheme_leaves_the_other() -> None:
    draft = _emitted(
        Opening(Scheme.HTTPS, PLACE, (A,), PortSet.single(443)),
        Opening(Scheme.HTTP, PLACE, (A,), PortSet.single(80), denials=(Denial(X, OTHER),)),
    )

    assert draft.deny[0].scheme is Scheme.HTTP
    assert not draft.remarks


def test_a_denial_that_touches_nothing_is_left_out() -> None:
    outside = Denial(HostPattern.parse("b.org"), OTHER)

    assert not _emitted(Opening(Scheme.HTTPS, PLACE, (A,), denials=(outside,))).deny
