"""A service of this machine is let in by name and port alone, and a denial wins over that."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.host_services import with_host_services
from claude_proxy.policy.policy import AddressOwner, Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.wire.authority import Authority

SERVICE = Authority.of("localhost", 11434)


def policy_of(text: str = "allow: [example.com]", port: int = 11434) -> Policy:
    return with_host_services(loader.read(text, name="allowlist.yaml").policy, [port])


def test_the_port_is_allowed_for_any_protocol_by_a_rule_of_its_own_source() -> None:
    decision = policy_of().decide_raw(SERVICE)

    assert (decision.allowed, decision.raw, decision.opaque) == (True, True, True)
    assert decision.rule is not None
    assert str(decision.rule.source) == "--forward:1"


@pytest.mark.parametrize(
    "target",
    ["localhost:11435", "127.0.0.1:11434", "[::1]:11434", "host:11434", "a.localhost:11434"],
)
def test_no_other_port_or_name_is_allowed(target: str) -> None:
    assert not policy_of().decide_connect(Authority.parse(target)).allowed


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("127.0.0.1", True), ("::1", True), ("127.0.0.2", False), ("10.0.0.1", False)],
)
def test_the_name_may_lead_to_loopback_alone(address: str, *, allowed: bool) -> None:
    decision = policy_of().decide_address(SERVICE, ip_address(address), AddressOwner.THIS_MACHINE)

    assert decision.allowed is allowed


def test_a_listener_of_the_proxy_itself_is_never_reached() -> None:
    decision = policy_of().decide_address(
        SERVICE, ip_address("127.0.0.1"), AddressOwner.OWN_LISTENER
    )

    assert decision.reason is Reason.PROXY_LOOP


@pytest.mark.parametrize("denied", ["localhost", "127.0.0.0/8", "127.0.0.1", '"::1"'])
def test_a_deny_rule_wins(denied: str) -> None:
    policy = policy_of(f"deny: [{denied}]")
    decisions = [
        policy.decide_address(SERVICE, ip_address(address), AddressOwner.THIS_MACHINE)
        for address in ("127.0.0.1", "::1")
    ]

    assert not all(decision.allowed for decision in decisions)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_denial_of_a_scheme_is_kept_by_a_look_at_the_first_bytes(scheme: str) -> None:
    denial = f"deny: [{{host: localhost, scheme: {scheme}}}]"

    decision = policy_of(denial).decide_connect(SERVICE)

    assert (decision.raw, decision.opaque) == (True, False)
    assert decision.secure == (scheme == "http")
    assert not policy_of(denial, port=80).decide_connect(Authority.of("localhost", 80)).raw


def test_without_a_port_the_policy_is_the_same() -> None:
    policy = Policy()

    assert with_host_services(policy, []) is policy
    assert replace(policy) == policy


def test_a_service_on_a_port_of_the_web_is_like_any_other() -> None:
    decision = policy_of(port=80).decide_connect(Authority.of("localhost", 80))

    assert (decision.raw, decision.opaque) == (True, True)


def test_a_rule_of_the_owners_for_the_same_port_does_not_narrow_it() -> None:
    rules = "allow: [{host: localhost, scheme: tcp, ports: [11434], addresses: [127.0.0.1]}]"

    assert policy_of(rules).decide_connect(SERVICE).opaque


def test_no_request_is_allowed_by_it() -> None:
    policy = policy_of()

    assert not policy.allows_url("http://localhost:11434/")
    assert not policy.allows_url("https://localhost:11434/")
