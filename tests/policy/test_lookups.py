"""A name may have an address if a tunnel to it is allowed, and it does not look like data."""

import pytest

from claude_proxy.policy.decision import Decision
from claude_proxy.policy.lookups import MOST_PORTS, LookupDecision, decide_lookup
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.reason import Reason
from tests.proxy.layers.stage import policy_of

POLICY = policy_of(
    """
    allow:
      - example.com
      - {host: db.corp.example, ports: [5432, 443]}
      - {host: plain.example, scheme: http}
      - "*.wild.example"
      - .whole.example
      - known-name-that-is-spelled-out-0123456789.wild.example
      - 192.0.2.1
    deny:
      - secret.wild.example
    """
)


def looked_up(name: str) -> LookupDecision:
    return decide_lookup(POLICY, name)


def reason(name: str) -> Reason:
    return looked_up(name).decision.reason


@pytest.mark.parametrize(
    ("name", "ports"),
    [
        ("example.com", (443,)),
        ("EXAMPLE.com", (443,)),
        ("db.corp.example", (443, 5432)),
        ("plain.example", (80,)),
        ("a.wild.example", (443,)),
        ("a.b.whole.example", (443,)),
    ],
)
def test_an_allowed_name_has_the_ports_that_rules_name(name: str, ports: tuple[int, ...]) -> None:
    found = looked_up(name)

    assert (found.decision.allowed, found.ports) == (True, ports)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("evil.example", Reason.NO_RULE),
        ("wild.example", Reason.NO_RULE),
        ("secret.wild.example", Reason.DENY_RULE),
        ("192.0.2.1", Reason.INVALID_TARGET),
        ("a\\032b.wild.example", Reason.INVALID_TARGET),
        ("", Reason.INVALID_TARGET),
        ("0x7f.1", Reason.INVALID_TARGET),
    ],
)
def test_every_other_name_is_denied(name: str, why: Reason) -> None:
    found = looked_up(name)

    assert (found.decision.allowed, found.decision.reason, found.ports) == (False, why, ())


@pytest.mark.parametrize(
    "label",
    [
        "x" * 41,
        "0123456789abcdef01234567",
        "mfrggzdfmztwq2lknnwg23tpoa2",
        ".".join(["deadbeef-data"] * 9),
    ],
)
@pytest.mark.parametrize("base", ["wild.example", "whole.example"])
def test_a_name_below_a_wildcard_that_looks_like_data_is_denied(label: str, base: str) -> None:
    assert reason(f"{label}.{base}") is Reason.NAME_LIMIT


@pytest.mark.parametrize(
    "name",
    [
        "internal-service-1234567890.wild.example",
        "r3---sn-4g5ednsl.wild.example",
        "d111111abcdef8.wild.example",
        "known-name-that-is-spelled-out-0123456789.wild.example",
        "whole.example",
    ],
)
def test_a_name_as_services_have_them_is_allowed(name: str) -> None:
    assert looked_up(name).decision.allowed


def test_a_name_that_a_rule_spells_out_has_no_wildcard() -> None:
    assert looked_up("example.com").wildcard is None
    assert looked_up("a.wild.example").wildcard == HostPattern.parse("*.wild.example")


def test_the_ports_of_a_name_are_bounded() -> None:
    ports = list(range(10_000, 10_100))

    found = decide_lookup(policy_of(f"allow: [{{host: a.example, ports: {ports}}}]"), "a.example")

    assert len(found.ports) == MOST_PORTS


def test_a_denied_lookup_is_a_decision_of_the_policy() -> None:
    assert isinstance(looked_up("evil.example").decision, Decision)
