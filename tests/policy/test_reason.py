"""Laws of reasons: stable codes, each used once."""

import re

from claude_proxy.policy.reason import Reason


def test_a_reason_is_a_word_that_a_header_can_hold() -> None:
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z][a-z0-9]*)*", reason.value) for reason in Reason)


def test_a_name_and_its_word_are_the_same() -> None:
    assert all(reason.name == reason.value.replace("-", "_").upper() for reason in Reason)
