"""As many connections are kept ready as a burst needed at once, few of them, and not for long."""

import pytest

from claude_proxy.proxy.warm_demand import BURST_S, MOST_AT_ONCE, MOST_KEYS, REMEMBERED_S, Demand


def after(*missed_s: float) -> Demand:
    demand = Demand()
    for at in missed_s:
        demand.missed("key", at)
    return demand


def test_one_is_wanted_where_nothing_is_known() -> None:
    assert Demand().wanted("key", 1.0) == 1


@pytest.mark.parametrize(
    ("missed_s", "wanted"),
    [
        ((10.0,), 1),
        ((10.0, 10.0, 10.1), 3),
        ((10.0, 10.0 + BURST_S, 10.0 + 2 * BURST_S), 1),
        ((10.0, 10.0, 10.0 + BURST_S), 2),
        ((10.0,) * 50, MOST_AT_ONCE),
    ],
)
def test_as_many_are_wanted_as_the_largest_burst_needed(
    missed_s: tuple[float, ...], wanted: int
) -> None:
    assert after(*missed_s).wanted("key", missed_s[-1]) == wanted


def test_requests_that_each_find_one_want_no_more() -> None:
    demand = after(10.0)
    for _ in range(5):
        demand.found("key", 10.1)

    assert demand.wanted("key", 10.1) == 1


def test_those_of_a_burst_that_found_one_count_when_another_finds_none() -> None:
    demand = Demand()
    demand.found("key", 10.0)
    demand.missed("key", 10.0)
    demand.missed("key", 10.0)

    assert demand.wanted("key", 10.0) == 3


def test_a_burst_that_finds_all_is_remembered_from_then() -> None:
    demand = after(10.0, 10.0)
    demand.found("key", 80.0)
    demand.found("key", 80.0)

    assert demand.wanted("key", 80.0 + REMEMBERED_S - 1) == 2


def test_a_smaller_burst_does_not_make_a_larger_one_forgotten() -> None:
    demand = after(10.0, 10.0, 10.0, 10.0 + REMEMBERED_S / 2)

    assert demand.wanted("key", 10.0 + REMEMBERED_S / 2) == 3


@pytest.mark.parametrize("at_s", [10.0 + REMEMBERED_S, 1e9, 0.0])
def test_a_burst_is_forgotten_after_a_time(at_s: float) -> None:
    assert after(10.0, 10.0).wanted("key", at_s) == 1


def test_a_single_request_after_that_time_wants_one() -> None:
    assert after(10.0, 10.0, 10.0 + REMEMBERED_S).wanted("key", 10.0 + REMEMBERED_S) == 1


def test_keys_are_apart() -> None:
    assert after(10.0, 10.0).wanted("other", 10.0) == 1


def test_only_so_many_keys_are_known() -> None:
    demand = Demand()
    for number in range(MOST_KEYS + 10):
        demand.missed(number, 10.0)
        demand.missed(number, 10.0)

    assert len(demand) == MOST_KEYS
    assert demand.wanted(0, 10.0) == 1
    assert demand.wanted(MOST_KEYS, 10.0) == 2
