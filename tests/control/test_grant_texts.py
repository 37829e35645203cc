"""What is said of grants is exact, and names who made them."""

import pytest

from claude_proxy.control import grant_texts
from claude_proxy.policy.grants import (
    SECOND_NS,
    End,
    Grant,
    GrantedRun,
    GrantKind,
    Moment,
    everything,
)
from tests.policy.cases import rule

HOUR_NS = 3600 * SECOND_NS
NOW = Moment(HOUR_NS, HOUR_NS, "boot")
HALF = Moment(NOW.wall_ns + HOUR_NS // 2, NOW.boot_ns + HOUR_NS // 2, "boot")
RUN = GrantedRun("build", "build.1")
HOSTS = Grant(3, (rule("a.test"),), HOUR_NS, NOW, "alice", "docs", lasts_ns=HOUR_NS)
COUNTED = Grant(4, (rule("a.test"),), HOUR_NS, NOW, "alice", uses=2, uses_left=1, run=RUN)
OF_RUN = Grant(5, (rule("a.test"),), HOUR_NS, NOW, "alice", run=RUN)
OPENED = Grant(
    6, (everything(),), HOUR_NS, NOW, "alice", "why", kind=GrantKind.OPEN, lasts_ns=HOUR_NS
)
REVOKED = Grant(7, (rule("a.test"),), HOUR_NS, NOW, "alice", lasts_ns=HOUR_NS, ended=End.REVOKED)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (45, "45 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (3601, "1 h"),
        (90_061, "1 d 1 h"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: int, text: str) -> None:
    assert grant_texts.duration_of(seconds * SECOND_NS) == text


def test_it_is_said_how_long_a_grant_still_lasts() -> None:
    left = [grant_texts.left_of(grant, HALF) for grant in (HOSTS, COUNTED, OF_RUN)]

    assert left == ["30 min", "1 use, the run", "the run"]


def test_it_is_said_what_bounds_a_grant() -> None:
    bounds = [grant_texts.bounds_of(grant) for grant in (HOSTS, COUNTED, OF_RUN)]

    assert bounds == ["for 1 h", "for 2 uses", "as long as it runs"]


def test_json_has_who_how_long_and_for_whom() -> None:
    found = grant_texts.as_json(COUNTED, HALF)

    assert found["number"] == 4
    assert found["text"].startswith("4: ")
    assert found["text"].endswith("for run build; left: 1 use, the run")
    assert (found["uses"], found["uses_left"]) == (2, 1)
    assert (found["run"], found["ends"], found["seconds_left"]) == ("build", None, None)
    assert found["by"] == "alice"
    assert grant_texts.as_json(HOSTS, HALF)["seconds_left"] == 1800
    assert grant_texts.as_json(OPENED, HALF)["allows"] == ["every public host"]


def test_the_record_tells_who_made_and_who_revoked_a_grant() -> None:
    made = grant_texts.recorded(HOSTS, "", is_end=False)
    revoked = grant_texts.recorded(REVOKED, "bob", is_end=True)
    ended = grant_texts.recorded(HOSTS, "", is_end=True)

    assert made[0] == "grant-made"
    assert made[1].startswith("grant 3 by alice (docs): ")
    assert revoked[0] == "grant-revoked"
    assert "revoked by bob" in revoked[1]
    assert ended[0] == "grant-ended"


def test_an_open_time_is_said_to_begin_to_last_and_to_end() -> None:
    lines = [
        grant_texts.opened_line(OPENED, NOW),
        grant_texts.still_open_line(OPENED, HALF),
        grant_texts.closed_line(OPENED, "time-over"),
    ]

    assert lines[0].startswith("OPEN for 1 h: every public host")
    assert "by alice: why" in lines[0]
    assert lines[1].startswith("STILL OPEN for 30 min")
    assert lines[2].startswith("CLOSED (time-over)")
    assert all("`claude-proxy close`" in line for line in lines[:2])
