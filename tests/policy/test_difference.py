"""Laws of the difference of two policies."""

from claude_proxy.policy.difference import Difference, difference
from claude_proxy.policy.policy import Policy


def test_a_policy_differs_in_nothing_from_itself() -> None:
    assert difference(Policy(), Policy()) == Difference()
