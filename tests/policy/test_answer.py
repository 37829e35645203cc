"""Laws of answers: one of them can allow."""

import pytest

from claude_proxy.policy.answer import Answer
from claude_proxy.policy.decision import allowed_by, answered_by
from tests.policy.cases import rule


@pytest.mark.parametrize("answer", [Answer.NO, Answer.NONE, Answer.NO_ROOM])
def test_nothing_but_a_yes_allows(answer: Answer) -> None:
    one = rule("a.test")

    decision = answered_by(allowed_by(one), answer)

    assert (decision.allowed, decision.rule) == (False, one)


def test_to_ask_again_is_no_answer() -> None:
    with pytest.raises(KeyError):
        answered_by(allowed_by(rule("a.test")), Answer.AGAIN)
