"""Room is made by those who have the most."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.audit.database import database_in
from claude_proxy.audit.shares import SharePlanner, plan_of
from claude_proxy.audit.store import AuditStore
from tests.audit.examples import MOMENT, a_decision
from tests.support.waiting import until

SIZES = st.dictionaries(st.text(max_size=3), st.tuples(st.integers(0, 9), st.integers(1, 10**9)))


@pytest.mark.parametrize(
    ("sizes", "excess"),
    [
        ({}, {}),
        ({"a": (1, 1600)}, {"a": 100}),
        ({"a": (1, 800), "b": (1, 800)}, {"a": 50, "b": 50}),
        ({"a": (1, 1500), "b": (1, 100)}, {"a": 100}),
        ({"a": (1, 700), "b": (1, 700), "c": (1, 200)}, {"a": 50, "b": 50}),
    ],
)
def test_the_greediest_make_room(sizes: dict[str, tuple[int, int]], excess: dict[str, int]) -> None:
    assert plan_of(sizes, 15 / 16).excess == excess


@given(SIZES)
def test_who_has_less_than_an_equal_share_loses_nothing(sizes: dict[str, tuple[int, int]]) -> None:
    plan = plan_of(sizes, 0.75)

    total = sum(size for _, size in sizes.values())
    share = total * 0.75 / max(1, len(sizes))
    assert all(sizes[owner][1] > share - 1 for owner in plan.excess)
    assert sum(plan.excess.values()) >= total * 0.25 - len(sizes)


def test_a_plan_takes_rows_until_enough_are_taken() -> None:
    plan = plan_of({"a": (3, 1600), "b": (1, 0)}, 15 / 16)

    assert plan.start == 3
    assert [plan.takes("b", 10), plan.takes("a", 60), plan.takes("a", 60)] == [False, True, True]
    assert not plan.takes("a", 60)
    assert plan.is_done
    assert plan.removed == {"a": 2}


def test_the_log_is_added_up_on_a_thread(tmp_path: Path) -> None:
    path = database_in(tmp_path / "state")
    store = AuditStore(path, retention_days=1_000_000)
    for number, run in enumerate(("one", "two", "one")):
        store.record(a_decision(MOMENT + number, run=run, path="/" * 100))
    planner = SharePlanner(path)

    assert planner.plan(0.9) is None
    plan = until(lambda: planner.plan(0.9))
    store.close()

    assert plan is not None
    assert list(plan.excess) == ["run one"]
    assert plan.start == MOMENT


def test_a_log_that_cannot_be_read_has_no_plan(tmp_path: Path) -> None:
    planner = SharePlanner(tmp_path / "missing")
    planner.plan(0.9)
    planner.close(10)

    assert planner._plan is None
