"""Grants: what bounds them, when they end, and whom they are for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.grants import (
    LONGEST_OPEN_NS,
    SECOND_NS,
    End,
    Grant,
    GrantedRun,
    GrantKind,
    Moment,
    everything,
    number_of,
    of_grant,
    place_of,
)
from claude_proxy.policy.rules import RawScheme
from tests.policy.cases import rule

HOUR_NS = 3600 * SECOND_NS
MADE = Moment(1_000 * HOUR_NS, 5 * HOUR_NS, "boot-1")
RUN = GrantedRun("build", "build.1")


def grant(**changes: Any) -> Grant:
    given_: dict[str, Any] = {
        "number": 7,
        "rules": (rule("a.test"),),
        "made_ns": MADE.wall_ns,
        "since": MADE,
        "by": "alice",
        "lasts_ns": HOUR_NS,
    }
    return Grant(**(given_ | changes))


def later(wall_ns: int, boot_ns: int | None = None, boot: str = "boot-1") -> Moment:
    boot_ns = wall_ns if boot_ns is None else boot_ns
    return Moment(MADE.wall_ns + wall_ns, MADE.boot_ns + boot_ns, boot)


def test_a_grant_that_nothing_bounds_cannot_be_created() -> None:
    with pytest.raises(ValueError, match="needs an end"):
        grant(lasts_ns=None)
    with pytest.raises(ValueError, match="needs an end"):
        grant(lasts_ns=None, project="/code")


@pytest.mark.parametrize(
    "changes",
    [{"rules": ()}, {"lasts_ns": 0}, {"uses": 0, "uses_left": 0}, {"uses": 2}, {"uses_left": 2}],
)
def test_a_grant_that_grants_nothing_cannot_be_created(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="grant"):
        grant(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"lasts_ns": None, "uses": 1, "uses_left": 1},
        {"lasts_ns": LONGEST_OPEN_NS + 1},
        {"rules": (rule("a.test", scheme=RawScheme.TCP, ports=frozenset({5432})),)},
    ],
)
def test_everything_is_open_for_a_day_at_most_and_never_for_raw_bytes(
    changes: dict[str, Any],
) -> None:
    grant(kind=GrantKind.OPEN, rules=(everything(),), lasts_ns=LONGEST_OPEN_NS)
    with pytest.raises(ValueError, match="open"):
        grant(kind=GrantKind.OPEN, **changes)


@pytest.mark.parametrize(
    ("now", "end"),
    [
        (later(0), None),
        (later(HOUR_NS - 1), None),
        (later(HOUR_NS), End.TIME),
        (later(2 * HOUR_NS, 1), End.TIME),  # the clock was set forward
        (later(1, HOUR_NS), End.TIME),  # it was set back, but never before the grant
        (later(-1, 1), End.CLOCK),
        (later(1, 1, "boot-2"), End.CLOCK),
    ],
)
def test_a_grant_ends_by_the_clock_that_is_ahead(now: Moment, end: End | None) -> None:
    assert grant().end(now) is end


@given(st.integers(0, 2 * HOUR_NS), st.integers(-HOUR_NS, 2 * HOUR_NS))
def test_no_clock_prolongs_a_grant(passed: int, jump: int) -> None:
    now = later(passed + jump, passed)
    if passed >= HOUR_NS:
        assert grant().end(now) is not None
    assert (grant().left_ns(now) or 0) <= max(0, HOUR_NS - passed)


def test_a_grant_ends_with_its_last_use() -> None:
    assert grant(uses=2, uses_left=1).end(later(0)) is None
    assert grant(uses=2, uses_left=0).end(later(0)) is End.USES


def test_what_has_ended_stays_so() -> None:
    assert grant(ended=End.REVOKED).end(later(0)) is End.REVOKED


def test_a_grant_for_a_number_of_uses_does_not_look_at_a_clock() -> None:
    counted = grant(lasts_ns=None, uses=1, uses_left=1)

    assert counted.end(later(-HOUR_NS, 0, "boot-2")) is None
    assert counted.left_ns(later(HOUR_NS)) is None
    assert counted.after_boot(later(0, 0, "boot-2"), 0) is counted


def test_the_rest_of_a_grants_time_counts_after_a_boot() -> None:
    now = Moment(MADE.wall_ns + HOUR_NS // 2, 10, "boot-2")

    again = grant().after_boot(now, MADE.wall_ns + 1)

    assert again.end(now) is None
    assert again.left_ns(now) == HOUR_NS // 2
    assert again.ends_ns == grant().ends_ns
    assert again.end(Moment(now.wall_ns, 10 + HOUR_NS // 2, "boot-2")) is End.TIME


@pytest.mark.parametrize(
    ("wall_ns", "highest_ns", "end"),
    [
        (-1, 0, End.CLOCK),
        (HOUR_NS // 4, HOUR_NS // 2, End.CLOCK),  # it was later already
        (HOUR_NS, 0, End.TIME),
    ],
)
def test_a_clock_that_was_set_back_over_a_boot_ends_a_grant(
    wall_ns: int, highest_ns: int, end: End
) -> None:
    now = Moment(MADE.wall_ns + wall_ns, 10, "boot-2")

    assert grant().after_boot(now, MADE.wall_ns + highest_ns).end(now) is end


def test_within_one_boot_nothing_is_counted_again() -> None:
    assert grant().after_boot(later(5), 0) == grant()


def test_a_grant_of_a_run_is_for_no_later_run_of_its_name() -> None:
    of_run = grant(run=RUN, lasts_ns=None)

    assert of_run.concerns(RUN, None)
    assert not of_run.concerns(GrantedRun("build", "build.2"), None)
    assert not of_run.concerns(None, None)


def test_a_grant_of_a_project_is_for_the_runs_in_it() -> None:
    of_project = grant(project="/code/a")

    assert all(of_project.concerns(RUN, inside) for inside in ("/code/a", "/code/a/b"))
    assert not any(of_project.concerns(RUN, other) for other in ("/code/ab", "/code", None))
    assert not of_project.concerns(None, "/code/a")
    assert grant().concerns(None, None)


def test_a_rule_says_which_grant_it_is_of() -> None:
    (found,) = of_grant([rule("a.test")], 12)

    assert number_of(found) == 12
    assert str(found.source) == "grant 12"
    assert str(place_of(3)) == "grant 3"
    assert number_of(rule("a.test")) is None
    assert number_of(None) is None


def test_a_grant_says_what_it_opens_and_for_whom() -> None:
    opened = grant(kind=GrantKind.OPEN, rules=(everything(),))

    assert opened.text == "every public host"
    assert opened.scope == "every proxy of this user"
    assert "a.test" in grant().text
    assert grant(run=RUN).scope == "run build"
    assert grant(project="/code").scope == "runs in /code"
