"""A run may look up so many names below one wildcard, and no more; what it has had stays."""

from claude_proxy.policy.patterns import HostPattern
from claude_proxy.proxy.name_limits import NAMES_LIMIT, RATE_LIMIT, RUN_LIMIT, NameLimits

WILD = HostPattern.parse("*.wild.example")
OTHER = HostPattern.parse("*.other.example")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def admitted(limits: NameLimits, count: int, wildcard: HostPattern = WILD, run: str = "r") -> int:
    done = 0
    for number in range(count):
        name = f"n{number}.example"
        if limits.admits(run, wildcard, name):
            limits.add(run, wildcard, name)
            done += 1
    return done


def test_only_so_many_new_names_are_admitted_in_a_minute() -> None:
    clock = Clock()
    limits = NameLimits(clock)

    assert admitted(limits, 1000) == RATE_LIMIT
    clock.now += 59
    assert admitted(limits, 1000) == RATE_LIMIT  # those that it has had already

    clock.now += 2
    assert admitted(limits, 1000) == 2 * RATE_LIMIT


def test_only_so_many_names_are_admitted_however_long_a_run_waits() -> None:
    clock = Clock()
    limits = NameLimits(clock)
    for _ in range(100):
        admitted(limits, 1000)
        clock.now += 3600

    assert admitted(limits, 1000) == NAMES_LIMIT


def test_each_wildcard_and_each_run_counts_for_itself() -> None:
    limits = NameLimits(Clock())
    admitted(limits, 1000)

    assert admitted(limits, 1000, OTHER) == RATE_LIMIT
    assert admitted(limits, 1000, WILD, run="another") == RATE_LIMIT


def test_where_every_host_is_allowed_only_the_pool_is_a_limit() -> None:
    assert admitted(NameLimits(Clock()), RUN_LIMIT + 9, HostPattern.every()) == RUN_LIMIT


def test_a_name_is_new_until_it_is_added() -> None:
    limits = NameLimits(Clock())

    assert limits.is_new("r", WILD, "a.wild.example")
    limits.add("r", WILD, "a.wild.example")
    assert not limits.is_new("r", WILD, "a.wild.example")


def test_lookups_below_many_other_wildcards_make_no_room_below_one() -> None:
    limits = NameLimits(Clock())
    admitted(limits, 1000)
    for number in range(1000):
        admitted(limits, 1, HostPattern.parse(f"*.w{number}.example"))

    assert not limits.admits("r", WILD, "one-more.wild.example")


def test_a_run_has_so_many_names_below_all_wildcards_together() -> None:
    limits = NameLimits(Clock())
    wildcards = [HostPattern.parse(f"*.w{number}.example") for number in range(200)]

    assert sum(admitted(limits, 1000, wildcard) for wildcard in wildcards) == RUN_LIMIT


def test_the_run_that_has_been_silent_longest_is_forgotten() -> None:
    limits = NameLimits(Clock())
    for number in range(2000):
        limits.add(f"run{number}", WILD, "a")

    assert limits.is_new("run0", WILD, "a")
    assert not limits.is_new("run1999", WILD, "a")
