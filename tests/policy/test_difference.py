"""Laws of the difference of two policies: proven against both policies, question by question."""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from claude_proxy.policy.comparison import openings
from claude_proxy.policy.comparison.host_tree import HostSet
from claude_proxy.policy.comparison.openings import Addresses, Opening, Requests, Unseen
from claude_proxy.policy.comparison.sides import is_unseen
from claude_proxy.policy.difference import Difference, difference, opened
from claude_proxy.policy.patterns import PatternKind
from claude_proxy.policy.policy import AddressOwner, Policy
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import RuleScheme
from claude_proxy.wire.address import AddressKind, effective, kind_of
from claude_proxy.wire.authority import Authority
from tests.policy.test_policy_properties import (
    HOSTS,
    LITERALS,
    LITERALS_V6,
    allow_rules,
    deny_rules,
    tcp_denials,
    tcp_rules,
)

both = st.builds(
    Policy,
    st.lists(allow_rules() | tcp_rules, max_size=5).map(tuple),
    st.lists(deny_rules | tcp_denials, max_size=2).map(tuple),
)
TARGETS = [
    Authority.of(host, port)
    for host in (*HOSTS, "elsewhere.example", *LITERALS, *LITERALS_V6)
    for port in (80, 443, 22)
]
METHODS = ("GET", "POST", "DELETE", "post")
SOME_PATHS = ("/", "/a", "/a/b", "/a/b.git/x", "/A/B", "/a%40b", "/a@b", "/a/../b", "*", "/z/b/")


def is_at(opening: Opening, scheme: RuleScheme | None, target: Authority) -> bool:
    """Return whether an opening is about a target; `scheme` None means any."""
    return (
        opening.hosts.covers(target)
        and any(each in {scheme, None} or scheme is None for each, _ in opening.places)
        and any(
            (scheme is None or each is scheme) and ports.covers(target.port)
            for each, ports in opening.places
        )
    )


def flat(found: Iterable[Opening]) -> Iterator[tuple[Opening, tuple[HostSet, ...]]]:
    """Yield each opening with the hosts for which another one says what is opened."""
    for opening in found:
        yield opening, tuple(part.hosts for part in opening.partly)
        for part in opening.partly:
            yield from flat(part.rest)


def about(
    found: Iterable[Opening], scheme: RuleScheme | None, target: Authority
) -> Iterator[Opening]:
    for opening, partly in flat(found):
        if is_at(opening, scheme, target) and not any(each.covers(target) for each in partly):
            yield opening


def opens_request(found: Iterable[Opening], request: Request) -> bool:
    return any(
        isinstance(what := opening.what, Requests)
        and what.methods.covers(request.method)
        and what.paths.covers(request.path)
        for opening in about(found, request.scheme, request.target)
    )


def requests_to(target: Authority) -> Iterator[Request]:
    for scheme, method, path in product(Scheme, METHODS, SOME_PATHS):
        yield Request(scheme, target, target, method, path)


@settings(max_examples=40, deadline=None)
@given(both, both)
def test_exactly_those_requests_are_opened_that_only_the_new_policy_allows(
    old: Policy, new: Policy
) -> None:
    found = opened(old, new)

    wrong = [
        (str(request.target), request.scheme, request.method, request.path)
        for target in TARGETS
        for request in requests_to(target)
        if opens_request(found, request)
        != (new.decide_request(request).allowed and not old.decide_request(request).allowed)
    ]
    assert wrong == []


def opens_unseen(found: Iterable[Opening], target: Authority, *texts: str) -> bool:
    return any(
        isinstance(opening.what, Unseen) and opening.what.text in texts
        for opening in about(found, None, target)
    )


@settings(max_examples=50, deadline=None)
@given(both, both)
def test_exactly_those_tunnels_are_opened_that_only_the_new_policy_allows(
    old: Policy, new: Policy
) -> None:
    found = opened(old, new)

    for target in TARGETS:
        was, now = old.decide_connect(target), new.decide_connect(target)
        raw = opens_unseen(found, target, openings.TCP, openings.TCP_WITHOUT_TLS, openings.OPAQUE)
        assert raw == (now.raw and not was.raw), target
        unseen = (openings.PASSTHROUGH, openings.TLS_IN_TCP, openings.TCP, openings.OPAQUE)
        if is_unseen(now) and not is_unseen(was):
            assert opens_unseen(found, target, *unseen), target
        if now.allowed and not was.allowed:
            assert any(about(found, None, target)), target
        if not now.allowed:
            assert not opens_unseen(found, target, *unseen, openings.CONNECTION), target


def opens_address(found: Iterable[Opening], target: Authority, address: str, *, own: bool) -> bool:
    # The IPv6 forms of an IPv4 address are that address.
    dialled = Authority.of(str(effective(ip_address(address))), target.port)
    return any(
        isinstance(what := opening.what, Addresses)
        and (own or not what.own)
        and (opening.hosts.pattern.kind is PatternKind.EVERY or opening.hosts.covers(target))
        and any(ports.covers(target.port) for _, ports in opening.places)
        and any(each.covers(dialled) for each in what.networks)
        for opening in found
    )


@settings(max_examples=50, deadline=None)
@given(both, both)
def test_every_address_is_named_that_a_name_may_newly_lead_to(old: Policy, new: Policy) -> None:
    found = opened(old, new)

    for target in TARGETS:
        if target.address is not None:
            continue
        was = old.decide_connect(target)
        for address in (*LITERALS, *LITERALS_V6):
            dialled = Authority.of(address, 1).address
            assert dialled is not None
            public = kind_of(dialled) is AddressKind.PUBLIC
            for owner in (AddressOwner.OTHER, AddressOwner.THIS_MACHINE):
                own = owner is AddressOwner.THIS_MACHINE
                before = old.decide_address(target, dialled, owner).allowed
                after = new.decide_address(target, dialled, owner).allowed
                if after and not before and (was.allowed or not public or own):
                    assert opens_address(found, target, address, own=own), (target, address, own)


@given(both)
def test_a_policy_differs_in_nothing_from_itself(policy: Policy) -> None:
    again = Policy(tuple(reversed(policy.allow)), policy.deny)

    assert difference(policy, policy) == Difference()
    assert [each for each in opened(policy, again) if isinstance(each.what, Requests)] == []


@settings(max_examples=50, deadline=None)
@given(both, allow_rules() | tcp_rules)
def test_a_denial_opens_nothing_and_an_entry_closes_nothing(policy: Policy, rule: object) -> None:
    more = Policy((*policy.allow, rule), policy.deny)  # type: ignore[arg-type]
    fewer = Policy(policy.allow, ())

    assert [
        each for each in difference(policy, more).closes if isinstance(each.what, Requests)
    ] == []
    # What a tunnel of tcp may not lead to, a request may: so a denial of tcp can open an address.
    assert [each for each in opened(fewer, policy) if isinstance(each.what, Requests)] == []
