"""Laws of decisions: nothing is allowed by accident."""

import pytest

from claude_proxy.policy.decision import (
    ANOTHER_LOGIN_PINNED,
    CREDENTIALS_CHANGED,
    FAULT,
    LOGIN_NOT_PINNED,
    UNRECORDED,
    Decision,
    allowed_by,
    denied,
    denied_by,
)
from claude_proxy.policy.reason import Reason
from tests.policy.cases import rule


def test_a_decision_has_no_truth_value() -> None:
    with pytest.raises(TypeError, match="allowed"):
        bool(denied(Reason.NO_RULE))


_ALLOWING = {Reason.RULE_MATCHED, Reason.ANSWERED}


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in _ALLOWING])
def test_a_denial_allows_nothing(reason: Reason) -> None:
    decision = denied(reason)

    assert (decision.allowed, decision.reason, decision.rule) == (False, reason, None)
    assert (decision.tls, decision.plain, decision.secure) == (None, False, False)


def test_a_denial_has_a_reason_to_deny() -> None:
    for reason in _ALLOWING:
        with pytest.raises(KeyError):
            denied(reason)


def test_a_decision_names_its_rule() -> None:
    one = rule("a.test")

    assert denied_by(one) == Decision(allowed=False, reason=Reason.DENY_RULE, rule=one)
    assert denied(Reason.ADDRESS_NOT_ALLOWED, one).rule is one
    assert (allowed_by(one).allowed, allowed_by(one).rule) == (True, one)


@pytest.mark.parametrize(
    "decision",
    [FAULT, UNRECORDED, ANOTHER_LOGIN_PINNED, LOGIN_NOT_PINNED, CREDENTIALS_CHANGED],
)
def test_every_internal_failure_denies(decision: Decision) -> None:
    assert not decision.allowed
