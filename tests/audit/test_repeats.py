"""Equal denials of one owner count on one row; anything else keeps a row of its own."""

from typing import Any

import pytest

from claude_proxy.audit.repeats import CONNECTIONS, KINDS, ROWS, WINDOW_S, RepeatedDenials
from tests.audit.examples import MOMENT, a_denial


@pytest.fixture
def repeats() -> RepeatedDenials:
    repeats = RepeatedDenials()
    repeats.recorded(a_denial(), 0.0)
    return repeats


def test_the_second_of_two_equal_denials_counts_on_the_first(repeats: RepeatedDenials) -> None:
    found = repeats.counted(a_denial(MOMENT + 5), 1.0)

    assert found is not None
    assert (found.id, found.count, found.last) == (MOMENT, 2, MOMENT + 5)
    assert repeats.unwritten(9) == [found]
    repeats.written([found])
    assert repeats.unwritten(9) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"client": "192.0.2.1:5"},
        {"run": "one"},
        {"listener": "other"},
        {"target": "other.example:443"},
        {"method": "POST"},
        {"reason": "deny-rule"},
        {"scheme": "http"},
        {"path": "/other"},
        {"attempt": 3},
    ],
)
def test_another_denial_needs_a_row_of_its_own(
    repeats: RepeatedDenials, changes: dict[str, Any]
) -> None:
    assert repeats.counted(a_denial(**changes), 1.0) is None


def test_equal_denials_on_new_connections_get_a_few_rows(repeats: RepeatedDenials) -> None:
    for number in range(1, CONNECTIONS):
        denial = a_denial(MOMENT + number, connection=100 + number, client=f"127.0.0.1:{number}")
        assert repeats.counted(denial, 1.0) is None
        repeats.recorded(denial, 1.0)

    found = repeats.counted(a_denial(connection=999, client="127.0.0.1:999"), 1.0)

    assert found is not None
    assert (found.id, found.count) == (MOMENT + CONNECTIONS - 1, 2)


def test_a_new_window_begins_with_a_row(repeats: RepeatedDenials) -> None:
    assert repeats.counted(a_denial(), WINDOW_S + 1) is None


def test_paths_beyond_a_bound_count_on_the_last_row(repeats: RepeatedDenials) -> None:
    for number in range(1, ROWS):
        denial = a_denial(MOMENT + number, path=f"/{number}")
        assert repeats.counted(denial, 1.0) is None
        repeats.recorded(denial, 1.0)

    found = repeats.counted(a_denial(path="/one/more"), 1.0)

    assert found is not None
    assert found.id == MOMENT + ROWS - 1


def test_invented_methods_are_one_kind(repeats: RepeatedDenials) -> None:
    repeats.recorded(a_denial(MOMENT + 1, method="AAAA"), 1.0)

    assert repeats.counted(a_denial(method="AAAB"), 1.0) is not None


def test_the_outcome_of_a_repeat_adds_nothing(repeats: RepeatedDenials) -> None:
    assert [repeats.adds_outcome(MOMENT) for _ in range(3)] == [True, False, False]
    assert [repeats.adds_outcome(5) for _ in range(2)] == [True, True]


def test_kinds_are_not_remembered_forever(repeats: RepeatedDenials) -> None:
    for number in range(KINDS + 10):
        repeats.recorded(a_denial(MOMENT + 1 + number, target=f"{number}.example:443"), 1.0)

    assert len(repeats._windows) == len(repeats._by_id) == KINDS
    assert repeats.counted(a_denial(), 1.0) is None
