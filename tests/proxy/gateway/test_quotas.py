"""Ceilings hold for a minute and for a day, and say when they will be open again."""

from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.settings import Ceilings
from claude_proxy.proxy.gateway.quotas import DAY_S, Quota, day_began

MIDNIGHT = 20_000 * DAY_S
NOON = MIDNIGHT + DAY_S / 2


def a_minute(most: int) -> Quota:
    return Quota(Ceilings(requests_per_minute=most))


def begins(quota: Quota, now: float, *, requests: int = 0, tokens: int = 0) -> int | None:
    return quota.begin(now, requests=requests, tokens=tokens)


def test_without_ceilings_everything_may_begin() -> None:
    quota = Quota(Ceilings())

    assert {begins(quota, NOON, requests=9999, tokens=9999) for _ in range(1000)} == {None}


def test_a_minute_holds_as_many_requests_as_the_owner_says() -> None:
    quota = a_minute(2)

    assert [begins(quota, NOON + second) for second in (0, 10, 20)] == [None, None, 40]


def test_a_request_may_begin_when_the_first_is_a_minute_old() -> None:
    quota = a_minute(1)

    assert [begins(quota, NOON + second) for second in (0, 59.5, 60)] == [None, 1, None]


def test_a_request_that_was_turned_down_does_not_count() -> None:
    quota = a_minute(1)
    for second in range(60):
        begins(quota, NOON + second)

    assert begins(quota, NOON + 60) is None


def test_what_other_processes_let_through_counts_too() -> None:
    assert begins(a_minute(3), NOON, requests=3) == 60
    assert begins(a_minute(3), NOON, requests=2) is None


def test_a_day_holds_as_many_tokens_as_the_owner_says() -> None:
    quota = Quota(Ceilings(tokens_per_day=100))

    assert begins(quota, NOON, tokens=99) is None
    assert begins(quota, NOON, tokens=100) == DAY_S / 2


def test_tokens_that_are_only_reserved_may_come_back_before_midnight() -> None:
    quota = Quota(Ceilings(tokens_per_day=100))

    assert quota.begin(NOON, requests=0, tokens=150, reserved=51) == 5
    assert quota.begin(NOON, requests=0, tokens=150, reserved=50) == DAY_S / 2
    assert quota.begin(NOON, requests=0, tokens=99, reserved=99) is None


def test_the_longer_of_two_waits_is_told() -> None:
    quota = Quota(Ceilings(requests_per_minute=1, tokens_per_day=1))
    begins(quota, NOON)

    assert begins(quota, NOON, tokens=1) == DAY_S / 2


def test_a_day_is_one_of_utc() -> None:
    assert day_began(NOON) == MIDNIGHT
    assert day_began(MIDNIGHT) == MIDNIGHT


def test_a_clock_that_was_set_back_keeps_nobody_out_for_long() -> None:
    quota = a_minute(1)
    begins(quota, NOON)

    assert begins(quota, NOON - 3600) is None


@given(st.integers(0, 5), st.lists(st.floats(0, 200), max_size=40).map(sorted))
def test_no_minute_ever_holds_more(most: int, moments: list[float]) -> None:
    quota = a_minute(most)

    began = [moment for moment in moments if begins(quota, NOON + moment) is None]

    for at in began:
        assert sum(at <= other < at + 60 for other in began) <= most
