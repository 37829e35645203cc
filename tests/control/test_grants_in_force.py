"""Laws of the grants in force: in time, for whom they are, and never more than the store says."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.control import grants_in_force
from claude_proxy.control.grant_store import FILE_NAME, Draft, GrantStore
from claude_proxy.control.grants_in_force import Changes, Ended, GrantsInForce, RunFacts
from claude_proxy.policy.grants import SECOND_NS, End, Grant, GrantedRun, Moment, number_of
from claude_proxy.policy.policy import Policy
from tests.policy.cases import request, rule

HOUR_NS = 3600 * SECOND_NS
START = Moment(1_000_000 * HOUR_NS, 5 * HOUR_NS, "boot-1")
POLICY = Policy((rule("listed.test"),))
BUILD = RunFacts(GrantedRun("build", "build.1"), "/code/a")


@dataclass
class Owner:
    """A store, a clock and the runs that live."""

    statedir: Path
    store: GrantStore
    now: Moment = START

    def __post_init__(self) -> None:
        self.runs = {"build": BUILD}
        self.proxies: list[GrantsInForce] = []

    def passes(self, wall_ns: int, boot_ns: int | None = None) -> None:
        boot = wall_ns if boot_ns is None else boot_ns
        self.now = Moment(self.now.wall_ns + wall_ns, self.now.boot_ns + boot, self.now.boot)

    def grants(self, host: str = "a.test", **changes: Any) -> Grant:
        given = Draft((rule(host),), "alice", lasts_ns=HOUR_NS)
        return self.store.make(replace(given, **changes), self.now)

    def proxy(self) -> GrantsInForce:
        known = GrantsInForce(self.statedir, self.runs.get, lambda: self.now)
        self.proxies.append(known)
        return known


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    store = GrantStore.open(tmp_path, make=True)
    assert store is not None
    with store:
        owner = Owner(tmp_path, store)
        yield owner
        for known in owner.proxies:
            known.close()


def number_for(known: GrantsInForce, run: str | None = None, host: str = "a.test") -> int | None:
    """Return by which grant a host is allowed; -1: it is denied, None: the list allows it."""
    decision = known.policy_for(POLICY, run).decide_request(request(host))
    return number_of(decision.rule) if decision.allowed else -1


def test_without_a_store_there_is_nothing_but_the_policy(tmp_path: Path) -> None:
    known = GrantsInForce(tmp_path, lambda _: None)

    assert known.look() == Changes()
    assert known.policy_for(POLICY, None) is POLICY
    assert list(tmp_path.iterdir()) == []


def test_a_grant_is_noticed_at_the_next_look_and_after_a_restart(owner: Owner) -> None:
    known = owner.proxy()
    known.look()
    made = owner.grants()

    assert number_for(known) == -1
    changes = known.look()
    assert [grant.number for grant in changes.made] == [made.number]
    assert [(each.grant.number, each.is_end) for each in changes.news] == [(made.number, False)]
    assert number_for(known) == 1
    assert known.look() == Changes()
    again = owner.proxy()
    again.look()
    assert number_for(again) == 1
    assert number_for(again, host="listed.test") is None


def test_the_same_policy_serves_as_long_as_nothing_changes(owner: Owner) -> None:
    owner.grants()
    known = owner.proxy()
    known.look()

    first = known.policy_for(POLICY, None)
    assert known.policy_for(POLICY, None) is first
    assert known.policy_for(Policy(), None) is not first


@pytest.mark.parametrize("jump", [(HOUR_NS, HOUR_NS), (HOUR_NS, 1), (1, HOUR_NS), (-1, 1)], ids=str)
def test_a_grant_ends_without_a_look_whichever_clock_says_so(
    owner: Owner, jump: tuple[int, int]
) -> None:
    owner.grants()
    known = owner.proxy()
    known.look()

    owner.passes(*jump)

    assert number_for(known) == -1
    assert [each.grant.number for each in known.look().ended] == [1]
    assert known.look() == Changes()
    owner.passes(-jump[0], 0)
    assert number_for(known) == -1


def test_the_end_is_news_in_one_process_alone(owner: Owner) -> None:
    owner.grants()
    known, other = owner.proxy(), owner.proxy()
    known.look()
    other.look()

    owner.passes(HOUR_NS)

    news = [each for proxy in (known, other) for each in proxy.look().news]
    assert [(each.grant.number, each.is_end) for each in news] == [(1, True)]
    assert owner.proxy().look().news == ()


def test_a_revoked_grant_ends_at_the_next_look(owner: Owner) -> None:
    made = owner.grants()
    known = owner.proxy()
    known.look()

    owner.store.end(1, End.REVOKED, owner.now, "bob")

    changes = known.look()
    assert changes.ended == (Ended(changes.ended[0].grant, End.REVOKED),)
    assert changes.ended[0].grant.number == made.number
    assert [(each.ended_by, each.is_end) for each in changes.news] == [("bob", True)]
    assert number_for(known) == -1


def test_a_use_that_another_proxy_took_is_not_taken_again(owner: Owner) -> None:
    owner.grants(uses=1)
    known, other = owner.proxy(), owner.proxy()
    known.look()
    other.look()

    assert known.is_counted(1)
    assert known.take(1)
    assert number_for(other) == 1
    assert not other.take(1)
    assert [number_for(proxy) for proxy in (known, other)] == [-1, -1]
    assert not known.take(1)


def test_what_took_the_last_use_goes_on_and_nothing_else(owner: Owner) -> None:
    owner.grants(uses=1)
    known = owner.proxy()
    known.look()
    known.take(1)

    held = known.policy_for(POLICY, None, [1])

    assert held.decide_request(request("a.test")).allowed
    assert known.goes_on(1, held=True)
    assert not known.goes_on(1, held=False)
    assert known.policy_for(POLICY, None) is POLICY
    assert [each.why for each in known.look().ended] == [End.USES]
    assert known.goes_on(1, held=True)


@pytest.mark.parametrize("ends", ["time", "run", "revoked"])
def test_what_goes_on_by_a_spent_grant_ends_with_its_time(owner: Owner, ends: str) -> None:
    owner.grants(uses=1, run=BUILD.run)
    known = owner.proxy()
    known.look()
    known.take(1)
    known.look()

    if ends == "time":
        owner.passes(HOUR_NS)
    elif ends == "run":
        owner.runs.clear()
    else:
        owner.store.end(1, End.REVOKED, owner.now)

    assert [grant.number for grant in known.look().stopped] == [1]
    assert known.look() == Changes()
    assert not known.has_spent
    assert not known.goes_on(1, held=True)
    assert known.policy_for(POLICY, None, [1]) is POLICY


def test_a_last_use_that_ends_in_time_stops_what_took_it_at_the_next_look(owner: Owner) -> None:
    owner.grants(uses=1)
    known = owner.proxy()
    known.look()
    known.take(1)

    owner.passes(HOUR_NS)

    assert [grant.number for grant in known.look().stopped] == [1]


def test_a_use_of_a_grant_that_was_just_revoked_is_no_end_by_its_uses(owner: Owner) -> None:
    owner.grants(uses=2)
    known = owner.proxy()
    known.look()
    assert known.take(1)
    owner.store.end(1, End.REVOKED, owner.now, "bob")

    assert not known.take(1)

    assert not known.goes_on(1, held=True)
    assert [each.why for each in known.look().ended] == [End.REVOKED]


def test_what_goes_on_elsewhere_is_no_reason_to_stop_what_goes_on_here(owner: Owner) -> None:
    owner.grants(uses=2)
    known, other = owner.proxy(), owner.proxy()
    known.look()
    other.look()
    assert known.take(1)
    assert other.take(1)

    assert not known.take(1)

    assert known.goes_on(1, held=True)
    assert known.look().stopped == ()


def test_a_store_that_is_lost_stops_what_goes_on_by_a_spent_grant(owner: Owner) -> None:
    owner.grants(uses=1)
    known = owner.proxy()
    known.look()
    known.take(1)
    known.look()
    (owner.statedir / FILE_NAME).rename(owner.statedir / "away")

    assert [grant.number for grant in known.look().stopped] == [1]
    assert not known.goes_on(1, held=True)


def test_a_grant_with_uses_left_stays(owner: Owner) -> None:
    owner.grants(uses=2)
    known = owner.proxy()
    known.look()

    assert known.take(1)
    assert number_for(known) == 1
    assert [grant.uses_left for grant in known.in_force()] == [1]
    assert known.goes_on(1, held=True)


def test_a_grant_of_a_run_is_for_it_alone_and_ends_with_it(owner: Owner) -> None:
    owner.grants(run=BUILD.run, lasts_ns=None)
    known = owner.proxy()
    known.look()

    assert [number_for(known, run) for run in ("build", "other", None)] == [1, -1, -1]
    owner.runs["build"] = RunFacts(GrantedRun("build", "build.2"), "/code/a")
    assert [each.why for each in known.look().ended] == [End.RUN]
    assert number_for(known, "build") == -1


def test_a_grant_of_a_project_is_for_the_runs_in_it(owner: Owner) -> None:
    owner.runs["other"] = RunFacts(GrantedRun("other", "other.1"), "/code/b")
    owner.grants(project="/code/a")
    known = owner.proxy()
    known.look()

    assert [number_for(known, run) for run in ("build", "other", None)] == [1, -1, -1]
    owner.runs["other"] = RunFacts(GrantedRun("other", "other.2"), "/code/a/sub")
    known.look()
    assert number_for(known, "other") == 1


def test_a_store_that_is_lost_grants_nothing(
    owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    owner.grants()
    known = owner.proxy()
    known.look()
    (owner.statedir / FILE_NAME).rename(owner.statedir / "away")

    (ended,) = known.look().ended

    assert ended == Ended(ended.grant, End.STORE)
    assert number_for(known) == -1
    assert "nothing is granted" in caplog.text
    (owner.statedir / "away").rename(owner.statedir / FILE_NAME)
    known.look()
    assert number_for(known) == 1


def test_a_use_that_cannot_be_written_is_not_taken(owner: Owner) -> None:
    owner.grants(uses=3)
    known = owner.proxy()
    known.look()
    known.close()

    assert not known.take(1)
    assert number_for(known) == -1


def test_what_is_remembered_is_bounded(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants_in_force, "_SPENT", 1)
    monkeypatch.setattr(grants_in_force, "_POLICIES", 1)
    owner.grants(uses=1)
    owner.grants(uses=1)
    known = owner.proxy()
    known.look()
    for run in (None, "a", "b"):
        assert number_for(known, run) == 1

    assert known.take(1)
    assert known.take(2)

    assert known.has_spent
    assert [known.goes_on(number, held=True) for number in (1, 2)] == [False, True]
