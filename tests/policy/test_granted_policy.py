"""Laws of a policy with grants: it allows what a grant says, and changes nothing else."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given

from claude_proxy.policy.decision import Decision
from claude_proxy.policy.granted_policy import with_grants
from claude_proxy.policy.grants import (
    SECOND_NS,
    Grant,
    GrantKind,
    Moment,
    everything,
    number_of,
)
from claude_proxy.policy.policy import AddressOwner, Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request
from claude_proxy.policy.rules import RawScheme, Rule, Tls
from claude_proxy.wire.address import Address
from claude_proxy.wire.authority import Authority
from tests.policy.cases import at, denied_for, deny, request, rule
from tests.policy.credentials.cases import binding, injection
from tests.policy.test_policy_properties import (
    addresses,
    allow_rules,
    policies,
    requests,
    targets,
)

NOW = Moment(0, 0, "boot")
TCP = RawScheme.TCP


def grant(*allowed: Rule, number: int = 1, uses: int | None = None, **more: Any) -> Grant:
    return Grant(
        number, allowed, 0, NOW, "alice", lasts_ns=SECOND_NS, uses=uses, uses_left=uses, **more
    )


def opened() -> Grant:
    return grant(everything(), kind=GrantKind.OPEN)


def test_without_grants_a_policy_is_itself() -> None:
    policy = Policy((rule("a.test"),))

    assert with_grants(policy, ()) is policy


def test_a_grant_allows_its_host_and_says_so() -> None:
    policy = with_grants(Policy(), [grant(rule("a.test"), number=4)])

    decision = policy.decide_request(request("a.test"))

    assert decision.allowed
    assert number_of(decision.rule) == 4
    assert policy.decide_connect(at("a.test")).tls is Tls.INTERCEPT
    assert denied_for(policy.decide_request(request("b.test"))) is Reason.NO_RULE


def test_what_the_list_allows_spends_no_grant() -> None:
    policy = with_grants(Policy((rule("a.test", paths=["/x/**"]),)), [grant(rule("a.test"))])

    assert number_of(policy.decide_request(request("a.test", path="/x/1")).rule) is None
    assert number_of(policy.decide_request(request("a.test", path="/y")).rule) == 1


def test_a_request_that_the_list_limits_stays_limited_beside_a_grant() -> None:
    policy = with_grants(Policy((rule("a.test", paths=["/x/**"]),)), [grant(rule("a.test"))])

    assert policy.decide_request(request("a.test", path="/x/1")).restricted
    assert not policy.decide_request(request("a.test", path="/y")).restricted


def test_a_limited_grant_does_not_borrow_from_a_wider_one() -> None:
    narrow = grant(rule("a.test", paths=["/x/**"]), number=1)
    policy = with_grants(Policy(), [narrow, grant(rule("a.test"), number=2, uses=1)])

    decision = policy.decide_request(request("a.test", path="/x/1"))

    assert number_of(decision.rule) == 1
    assert decision.restricted


def test_a_grant_that_costs_nothing_is_used_first() -> None:
    counted, free = grant(rule("a.test"), number=1, uses=1), grant(rule("a.test"), number=2)

    policy = with_grants(Policy(), [counted, free])

    assert number_of(policy.decide_request(request("a.test")).rule) == 2


@pytest.mark.parametrize("granted", [grant(rule("a.test")), opened()])
def test_a_denial_wins(granted: Grant) -> None:
    policy = with_grants(Policy(deny=(deny("a.test"),)), [granted])

    assert denied_for(policy.decide_request(request("a.test"))) is Reason.DENY_RULE
    assert denied_for(policy.decide_connect(at("a.test"))) is Reason.DENY_RULE


def test_a_denied_network_stays_denied_for_names_that_lead_there() -> None:
    policy = with_grants(Policy(deny=(deny("8.8.8.0/24"),)), [opened()])

    decision = policy.decide_address(at("a.test"), ip_address("8.8.8.8"))

    assert denied_for(decision) is Reason.DENY_RULE


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "fd00::1"])
def test_an_open_time_opens_no_private_address(address: str) -> None:
    policy = with_grants(Policy(), [opened()])
    bracketed = f"[{address}]" if ":" in address else address

    assert not policy.decide_address(at("a.test"), ip_address(address)).allowed
    assert not policy.decide_request(request(bracketed)).allowed


def test_an_open_time_opens_public_hosts_for_requests_alone() -> None:
    policy = with_grants(Policy(), [opened()])

    assert policy.decide_request(request("any.test:8443", "POST", "/x")).allowed
    assert policy.decide_address(at("any.test"), ip_address("8.8.8.8")).allowed
    assert not policy.decide_connect(at("any.test:5432")).raw
    assert denied_for(policy.decide_raw(at("any.test:5432"))) is Reason.NOT_TLS


def test_a_grant_names_a_private_address_as_a_rule_of_a_list_does() -> None:
    named = grant(rule("git.test", addresses=["10.1.2.3/32"]))
    policy = with_grants(Policy(), [named])

    assert policy.decide_address(at("git.test"), ip_address("10.1.2.3")).allowed
    assert not policy.decide_address(at("git.test"), ip_address("10.1.2.4")).allowed
    here = AddressOwner.OWN_LISTENER
    assert not policy.decide_address(at("git.test"), ip_address("10.1.2.3"), here).allowed


def test_a_request_is_a_use_where_a_counted_grant_names_the_address() -> None:
    named = grant(rule("git.test", addresses=["10.1.2.3/32"]), uses=1)
    policy = with_grants(Policy((rule("git.test"), rule("a.test"))), [named])

    assert number_of(policy.decide_request(request("git.test")).rule) == 1
    assert number_of(policy.decide_request(request("a.test")).rule) is None


def test_a_grant_for_requests_leaves_raw_bytes_as_they_are() -> None:
    database = rule("db.test", scheme=TCP, ports=[5432])
    web = rule("db.test", ports=[5432], paths=["/x"])
    policy = with_grants(Policy((database,)), [grant(web)])

    assert policy.decide_connect(at("db.test:5432")) == Policy((database,)).decide_connect(
        at("db.test:5432")
    )


def test_a_grant_for_raw_bytes_is_one_for_its_port_alone() -> None:
    policy = with_grants(Policy(), [grant(rule("db.test", scheme=TCP, ports=[5432]))])

    assert policy.decide_connect(at("db.test:5432")).raw
    assert not policy.decide_connect(at("db.test")).allowed


def test_a_passthrough_of_the_list_stays_one_in_an_open_time() -> None:
    policy = with_grants(Policy((rule("a.test", tls=Tls.PASSTHROUGH),)), [opened()])

    assert policy.decide_connect(at("a.test")).tls is Tls.PASSTHROUGH


def test_credentials_stay_bound() -> None:
    policy = Policy((rule("a.test"),), credentials=(binding(injection(), "a.test"),))

    granted = with_grants(policy, [opened()])

    verdict = granted.evaluate(request("a.test"))
    assert granted.binds(at("a.test"))
    assert verdict.decision == policy.evaluate(request("a.test")).decision
    assert granted.decide_departure(request("a.test"), verdict) == verdict.decision


def test_the_api_fetches_for_a_client_only_what_the_list_allows() -> None:
    policy = with_grants(Policy((rule("a.test"),)), [opened()])

    assert policy.allows_url("https://a.test/")
    assert not policy.allows_url("https://b.test/")


def test_a_long_list_is_not_indexed_again() -> None:
    policy = Policy((rule("a.test"),))

    granted = with_grants(policy, [grant(rule("b.test"))])

    assert granted._rules.find(at("a.test")) is policy._rules.find(at("a.test"))
    assert granted._rules.find(at("c.test")) is None


@given(policies, allow_rules(), targets, requests(), addresses)
def test_a_grant_takes_nothing_away(
    policy: Policy, extra: Rule, target: Authority, asked: Request, address: Address
) -> None:
    granted = with_grants(policy, [grant(extra)])

    def decisions_of(judge: Policy) -> list[Decision]:
        connect, request_ = judge.decide_connect(target), judge.decide_request(asked)
        return [connect, request_, judge.decide_address(target, address)]

    for before, after in zip(decisions_of(policy), decisions_of(granted), strict=True):
        assert after.allowed or not before.allowed
        assert before.reason is not Reason.DENY_RULE or not after.allowed


@given(policies, allow_rules(), requests())
def test_a_grant_allows_what_the_same_rule_would_in_the_list(
    policy: Policy, extra: Rule, asked: Request
) -> None:
    granted = with_grants(policy, [grant(extra)])
    listed = replace(policy, allow=(*policy.allow, extra))

    assert granted.decide_request(asked).allowed == listed.decide_request(asked).allowed
