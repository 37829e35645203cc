"""Laws of stored rules: what is read back is what was stored, or an error."""

import json
from typing import Any

import pytest
from hypothesis import given

from claude_proxy.control import stored_rules
from claude_proxy.policy.grants import everything, of_grant, place_of
from claude_proxy.policy.rules import RawScheme, Rule, Tls
from tests.policy.cases import rule
from tests.policy.test_policy_properties import allow_rules

SOURCE = place_of(3)


@given(allow_rules())
def test_a_rule_is_read_back_as_it_was_stored(one: Rule) -> None:
    assert stored_rules.decode(stored_rules.encode([one]), SOURCE) == of_grant([one], 3)


@pytest.mark.parametrize(
    "one",
    [
        everything(),
        rule("db.test", scheme=RawScheme.TCP, ports=[5432]),
        rule("a.test", tls=Tls.PASSTHROUGH),
        rule("*.a.test", methods=["GET"], paths=["/x/**"], addresses=["10.0.0.0/8", "fd00::1/128"]),
        rule("10.0.0.0/8", ports=None),
        rule("192.0.2.1"),
    ],
    ids=str,
)
def test_every_kind_of_rule_can_be_stored(one: Rule) -> None:
    assert stored_rules.decode(stored_rules.encode([one]), SOURCE) == of_grant([one], 3)


@pytest.mark.parametrize("field", ["host", "scheme", "ports", "methods", "paths", "addresses"])
def test_a_rule_that_lacks_a_field_is_refused(field: str) -> None:
    (found,) = json.loads(stored_rules.encode([rule("a.test", paths=["/x"])]))
    del found[field]

    with pytest.raises(ValueError, match="fields"):
        stored_rules.decode(json.dumps([found]), SOURCE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", "*"),
        ("host", 5),
        ("scheme", "ftp"),
        ("ports", []),
        ("ports", [True]),
        ("ports", "443"),
        ("methods", "GET"),
        ("methods", []),
        ("paths", [1]),
        ("paths", ["no glob"]),
        ("tls", "off"),
        ("addresses", ["10.0.0.300"]),
        ("note", None),
    ],
)
def test_a_rule_with_an_odd_value_is_refused(field: str, value: Any) -> None:
    (found,) = json.loads(stored_rules.encode([rule("a.test")]))

    with pytest.raises(ValueError, match=r"\w"):
        stored_rules.decode(json.dumps([found | {field: value}]), SOURCE)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1]", "nothing"])
def test_what_is_no_list_of_rules_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        stored_rules.decode(text, SOURCE)
