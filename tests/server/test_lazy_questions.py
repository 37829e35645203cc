"""Questions are made with the first."""

from typing import Any, cast

import pytest

from claude_proxy.server.lazy_questions import LazyQuestions


class Owner:
    """Stands for what takes the answers."""

    def __init__(self) -> None:
        self.made: object = None
        self.calls: list[str] = []

    def __call__(self) -> object:
        self.made = self
        return self

    def ask_again(self) -> None:
        self.calls.append("ask again")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def owner() -> Owner:
    return Owner()


def test_nothing_is_made_for_nothing(owner: Owner) -> None:
    questions = LazyQuestions(cast("Any", lambda: pytest.fail("made")))

    questions.ask_again()
    questions.close()

    assert questions.made is None
    assert owner.calls == []


def test_what_was_made_is_kept_and_told(owner: Owner) -> None:
    questions = LazyQuestions(cast("Any", lambda: owner))

    assert questions() is cast("Any", owner)
    questions.ask_again()
    questions.close()

    assert questions.made is cast("Any", owner)
    assert owner.calls == ["ask again", "close"]
