"""Laws of the policy: what is allowed, what is denied, and why."""

from dataclasses import FrozenInstanceError, fields, replace
from ipaddress import ip_address

import pytest

from claude_proxy.policy.decision import Decision
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import PathGlob
from claude_proxy.policy.policy import AddressOwner, Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import Tls
from tests.policy.cases import NOWHERE, at, denied_for, deny, http, request, rule


def hello(policy: Policy, target: str, sni: str | None) -> Decision:
    """Decide about a plain hello in a tunnel whose TLS is intercepted."""
    return policy.decide_hello(at(target), sni, encrypted=False, tls=Tls.INTERCEPT)


def test_an_empty_policy_allows_nothing() -> None:
    policy = Policy()

    assert denied_for(policy.decide_connect(at("example.com"))) is Reason.NO_RULE
    assert denied_for(policy.decide_request(request("example.com"))) is Reason.NO_RULE
    assert denied_for(hello(policy, "a.test", "a.test")) is Reason.NO_RULE
    assert (
        denied_for(policy.decide_address(at("example.com"), ip_address("8.8.8.8")))
        is Reason.NO_RULE
    )
    assert denied_for(policy.decide_connect(at("192.0.2.1"))) is Reason.NO_RULE


def test_a_request_must_claim_the_host_that_it_goes_to() -> None:
    policy = Policy((rule("a.test", ports=(443, 8443)), rule("b.test")))

    for host in ("b.test", "a.test:8443", "evil.test", "sub.a.test", "192.0.2.1"):
        decision = policy.decide_request(request("a.test", host=host))
        assert denied_for(decision) is Reason.HOST_MISMATCH
    assert policy.decide_request(request("a.test", host="A.TEST.:443")).allowed


@pytest.mark.parametrize(
    "method", ["TRACE", "CONNECT", "TRACK", "trace", "Connect", "", "GET ", "G\u00cbT", "GET\r\nX"]
)
def test_some_methods_are_refused_whatever_the_rules(method: str) -> None:
    policy = Policy((rule("a.test"),))

    assert denied_for(policy.decide_request(request("a.test", method))) is Reason.METHOD_REFUSED


def test_the_sni_must_be_the_target() -> None:
    policy = Policy((rule(".a.test"),))

    assert hello(policy, "a.test", "a.test").allowed
    assert hello(policy, "a.test", "A.Test").allowed
    for sni in ("b.a.test", "evil.test", "a.test.", "", "a.test:443", "a.test\0.evil", "192.0.2.1"):
        assert denied_for(hello(policy, "a.test", sni)) is Reason.SNI_MISMATCH
    assert denied_for(hello(policy, "a.test", None)) is Reason.SNI_MISSING


def test_a_letter_that_folds_to_ascii_is_no_match_for_it() -> None:
    policy = Policy((rule("kernel.test"),))

    decision = hello(policy, "kernel.test", "\u212aernel.test")

    assert denied_for(decision) is Reason.SNI_MISMATCH


def test_an_address_is_dialled_without_sni_or_not_at_all() -> None:
    policy = Policy((rule("192.0.2.1"),))

    assert hello(policy, "192.0.2.1", None).allowed
    for sni in ("192.0.2.1", "a.test"):
        decision = hello(policy, "192.0.2.1", sni)
        assert denied_for(decision) is Reason.SNI_MISMATCH


@pytest.mark.parametrize("tls", [Tls.PASSTHROUGH, None])
def test_an_encrypted_hello_is_denied_where_tls_is_not_intercepted(tls: Tls | None) -> None:
    policy = Policy((rule("a.test"),))

    decision = policy.decide_hello(at("a.test"), "a.test", encrypted=True, tls=tls)

    assert denied_for(decision) is Reason.ENCRYPTED_HELLO


@pytest.mark.parametrize(
    ("sni", "reason"),
    [("a.test", None), ("b.test", Reason.SNI_MISMATCH), (None, Reason.SNI_MISSING)],
)
def test_an_encrypted_hello_is_judged_by_its_outer_name_where_tls_is_intercepted(
    sni: str | None, reason: Reason | None
) -> None:
    policy = Policy((rule("a.test"),))

    decision = policy.decide_hello(at("a.test"), sni, encrypted=True, tls=Tls.INTERCEPT)

    assert (None if decision.allowed else decision.reason) is reason


def test_tls_is_denied_where_only_plain_http_is_allowed() -> None:
    policy = Policy((http("a.test"),))

    decision = hello(policy, "a.test:80", "a.test")

    assert denied_for(decision) is Reason.SCHEME_NOT_ALLOWED


def test_an_accepted_hello_keeps_what_the_tunnel_was_granted() -> None:
    policy = Policy((rule("a.test", tls=Tls.PASSTHROUGH),))

    assert hello(policy, "a.test", "a.test").tls is Tls.PASSTHROUGH


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_a_name_may_lead_to_a_public_address(address: str) -> None:
    policy = Policy((rule("a.test"),))

    assert policy.decide_address(at("a.test"), ip_address(address)).allowed


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "0.0.0.0",
        "224.0.0.1",
        "192.0.2.1",
        "100.64.0.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_a_name_may_not_lead_to_an_address_that_is_not_public(address: str) -> None:
    policy = Policy((rule("a.test"),))

    decision = policy.decide_address(at("a.test"), ip_address(address))

    assert denied_for(decision) is Reason.ADDRESS_NOT_ALLOWED


def test_a_rule_may_name_the_addresses_of_its_host() -> None:
    policy = Policy(
        (
            rule("a.test", addresses=("10.0.0.0/8", "fd00::/8")),
            rule("a.test", ports=(8443,), addresses=("192.168.0.0/16",)),
            rule("b.test"),
        )
    )

    def decide(target: str, address: str) -> bool:
        return policy.decide_address(at(target), ip_address(address)).allowed

    assert decide("a.test", "10.1.2.3")
    assert decide("a.test", "::ffff:10.1.2.3")
    assert decide("a.test", "fd00::1")
    assert decide("a.test", "8.8.8.8")
    assert not decide("a.test", "192.168.0.1")
    assert not decide("a.test", "127.0.0.1")
    assert not decide("b.test", "10.1.2.3")
    assert not decide("a.test:22", "10.1.2.3")


def test_a_network_that_merely_holds_a_metadata_service_does_not_name_it() -> None:
    wide = rule("a.test", addresses=("169.254.0.0/16", "fd00::/8"))
    exact = rule("b.test", addresses=("169.254.169.254/32", "fd00:ec2::254/128"))
    policy = Policy((wide, exact, rule("169.254.0.0/16"), rule("168.63.129.16")))

    for text in ("169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254"):
        address = ip_address(text)
        assert not policy.decide_address(at("a.test"), address).allowed
        assert policy.decide_address(at("b.test"), address).allowed
    assert policy.decide_address(at("a.test"), ip_address("169.254.1.1")).allowed
    assert denied_for(policy.decide_connect(at("169.254.169.254"))) is Reason.NO_RULE
    assert policy.decide_connect(at("169.254.1.1")).allowed
    assert policy.decide_connect(at("168.63.129.16")).allowed


def test_a_literal_target_leads_to_itself_alone() -> None:
    policy = Policy((rule("127.0.0.1"), rule("10.0.0.0/8")))

    assert policy.decide_address(at("127.0.0.1"), ip_address("127.0.0.1")).allowed
    assert policy.decide_address(at("10.1.2.3"), ip_address("10.1.2.3")).allowed
    decision = policy.decide_address(at("127.0.0.1"), ip_address("8.8.8.8"))
    assert denied_for(decision) is Reason.ADDRESS_NOT_ALLOWED


def test_a_denied_network_may_not_be_reached_by_name_either() -> None:
    policy = Policy(
        (rule("a.test", ports=(443, 8443), addresses=("10.0.0.0/8",)), rule("8.0.0.0/8")),
        (deny("8.8.0.0/16"), deny("10.9.9.9", ports=(8443,)), deny("9.9.9.9", methods=("PUT",))),
    )

    def decide(target: str, address: str) -> Decision:
        return policy.decide_address(at(target), ip_address(address))

    for address in ("8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert denied_for(decide("a.test", address)) is Reason.DENY_RULE
    assert denied_for(decide("a.test:8443", "10.9.9.9")) is Reason.DENY_RULE
    assert decide("a.test", "10.9.9.9").allowed
    assert decide("a.test", "8.7.0.1").allowed
    assert decide("a.test", "9.9.9.9").allowed


@pytest.mark.parametrize("scheme", [None, *Scheme])
def test_a_network_denied_for_one_scheme_is_denied_to_names_for_both(scheme: Scheme | None) -> None:
    policy = Policy((rule("a.test"), http("b.test")), (deny("8.8.8.8", scheme=scheme),))

    for target in ("a.test:443", "b.test:80"):
        decision = policy.decide_address(at(target), ip_address("8.8.8.8"))
        assert denied_for(decision) is Reason.DENY_RULE


def test_an_embedded_ipv4_address_is_denied_by_the_rule_for_it() -> None:
    policy = Policy((rule("10.0.0.0/8"),), (deny("10.0.0.1"),))

    assert denied_for(policy.decide_connect(at("[::ffff:a00:1]"))) is Reason.DENY_RULE
    assert denied_for(policy.decide_connect(at("[::ffff:a00:2]"))) is Reason.NO_RULE


def test_what_was_decided_on_cannot_be_changed_afterwards() -> None:
    policy = Policy((rule("a.test", paths=("/a",)),))
    decision = policy.decide_connect(at("a.test"))
    rules = policy.allow[0]
    asked = request("a.test")

    for value in (policy, decision, rules, rules.pattern, rules.source, PathGlob("/a"), asked):
        name = fields(value)[0].name
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


def test_policies_compare_and_show_their_rules_alone() -> None:
    one, two = Policy((rule("a.test"),)), Policy((rule("a.test"),))
    one.decide_connect(at("a.test"))

    assert one == two
    assert one != Policy((rule("b.test"),))
    assert (
        repr(one)
        == f"Policy(allow={one.allow!r}, deny=(), credentials=(), restrictions=(), ask=())"
    )
    assert repr(PathGlob("/a")) == "PathGlob(text='/a')"


def test_a_policy_counts_and_lists_its_rules() -> None:
    policy = Policy((rule("*.b.test"), rule("a.test"), http("a.test")), (deny("x.b.test"),))

    assert policy.rules_count == 4
    assert list(policy.hosts()) == ["*.b.test", "a.test"]


def test_a_diff_shows_what_a_new_policy_adds_and_removes() -> None:
    old = Policy((rule("a.test"), rule("b.test")), (deny("c.test"),))
    moved = replace(rule("a.test"), source=Location("other.yaml", 9, 9), note="new")
    new = Policy((moved, rule("b.test", methods=("GET",))), (deny("d.test"),))

    added, removed = old.diff(new)

    assert added == ("https://b.test ports 443 methods GET", "deny d.test")
    assert removed == ("https://b.test ports 443", "deny c.test")
    assert old.diff(old) == ((), ())


# --- whose address it is


@pytest.mark.parametrize("host", ["a.test", "127.0.0.1"])
def test_the_proxy_does_not_dial_itself_whatever_the_rules_allow(host: str) -> None:
    policy = Policy((rule(host, addresses=("127.0.0.0/8",) if host == "a.test" else ()),))
    address = ip_address("127.0.0.1")

    decision = policy.decide_address(at(host), address, AddressOwner.OWN_LISTENER)

    assert denied_for(decision) is Reason.PROXY_LOOP
    assert policy.decide_address(at(host), address, AddressOwner.THIS_MACHINE).allowed


def test_a_public_address_of_this_machine_must_be_named_by_a_rule() -> None:
    address = ip_address("93.184.216.34")
    plain, naming = rule("a.test"), rule("b.test", addresses=("93.184.216.34",))
    policy = Policy((plain, naming, rule("93.184.216.34")))

    for host, allowed in (("a.test", False), ("b.test", True), ("93.184.216.34", True)):
        assert policy.decide_address(at(host), address).allowed
        decision = policy.decide_address(at(host), address, AddressOwner.THIS_MACHINE)
        assert decision.allowed is allowed


def test_a_rule_for_every_host_names_no_address_of_this_machine() -> None:
    policy = Policy().allowing_by_default(NOWHERE)
    address = ip_address("93.184.216.34")

    decision = policy.decide_address(at(str(address)), address, AddressOwner.THIS_MACHINE)

    assert policy.decide_address(at(str(address)), address).allowed
    assert denied_for(decision) is Reason.ADDRESS_NOT_ALLOWED
