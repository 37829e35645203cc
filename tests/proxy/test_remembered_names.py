"""What a name resolved to is remembered for seconds, of so many names, and never a verdict."""

from ipaddress import ip_address

import pytest

from claude_proxy.proxy.remembered_names import (
    MOST_ADDRESSES,
    MOST_AGE_S,
    MOST_NAMES,
    RememberedNames,
    clock_s,
)

ADDRESSES = [ip_address("192.0.2.7"), ip_address("2001:db8::7")]


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_addresses_are_those_that_were_kept_in_their_order() -> None:
    names = RememberedNames()
    names.keep("a.example", ADDRESSES, names.clock())

    assert names.find("a.example") == ADDRESSES
    assert names.find("b.example") is None


def test_what_a_caller_does_with_the_addresses_does_not_change_the_memory() -> None:
    names = RememberedNames()
    names.keep("a.example", ADDRESSES, names.clock())
    found = names.find("a.example")
    assert found is not None

    found.clear()

    assert names.find("a.example") == ADDRESSES


@pytest.mark.parametrize("age_s", [MOST_AGE_S, MOST_AGE_S + 1, 1e9, -1.0])
def test_an_answer_is_gone_after_seconds(age_s: float) -> None:
    clock = Clock()
    names = RememberedNames(clock)
    names.keep("a.example", ADDRESSES, clock())

    clock.now_s += age_s

    assert names.find("a.example") is None
    assert not names._answers


def test_the_age_counts_from_the_question_whatever_was_asked_since() -> None:
    clock = Clock()
    names = RememberedNames(clock)
    names.keep("a.example", ADDRESSES, clock() - MOST_AGE_S + 1)
    assert names.find("a.example") == ADDRESSES

    clock.now_s += 1

    assert names.find("a.example") is None


def test_the_oldest_name_makes_room_for_the_newest() -> None:
    names = RememberedNames()
    for number in range(MOST_NAMES + 1):
        names.keep(f"n{number}.example", ADDRESSES, names.clock())

    assert len(names._answers) == MOST_NAMES
    assert names.find("n0.example") is None
    assert names.find(f"n{MOST_NAMES}.example") == ADDRESSES


def test_an_answer_of_very_many_addresses_is_not_kept() -> None:
    names = RememberedNames()
    names.keep("a.example", ADDRESSES, names.clock())
    many = [ip_address(number) for number in range(MOST_ADDRESSES + 1)]

    names.keep("a.example", many, names.clock())

    assert names.find("a.example") is None


def test_what_fails_has_the_name_forgotten() -> None:
    names = RememberedNames()
    names.keep("a.example", ADDRESSES, names.clock())
    with names.kept_if_good("a.example"):
        pass
    assert names.find("a.example") == ADDRESSES

    with pytest.raises(KeyboardInterrupt), names.kept_if_good("a.example"):
        raise KeyboardInterrupt

    assert names.find("a.example") is None


def test_the_clock_does_not_go_back() -> None:
    assert clock_s() <= clock_s()
