"""Answers that last become grants of the run that asked."""

from pathlib import Path

import pytest

from claude_proxy.config.settings import Settings
from claude_proxy.control import present
from claude_proxy.control.answers import AnswerError, Reply, Verdict
from claude_proxy.control.grant_store import GrantStore
from claude_proxy.policy.grants import SECOND_NS, End
from claude_proxy.policy.questions import Access, Subject
from claude_proxy.policy.request import Scheme
from claude_proxy.server.answer_grants import MakeGrants
from claude_proxy.wire.authority import Authority
from tests.policy.cases import rule

TARGET = Authority.of("a.test", 443)


def makers(tmp_path: Path) -> tuple[MakeGrants, list[str]]:
    told: list[str] = []
    settings = Settings(tmp_path, tmp_path, tmp_path / "state", runs=tmp_path / "runs")
    return MakeGrants(settings, lambda: told.append("refreshed")), told


def test_a_grant_of_an_answer_is_kept_and_noticed(tmp_path: Path) -> None:
    make, told = makers(tmp_path)
    subject = Subject(None, Scheme.HTTPS, TARGET, Access.READ)

    number = make(subject, rule("a.test"), Reply(Verdict.FOR, seconds=60.0), "me")
    make(subject, rule("a.test"), Reply(Verdict.TIMES, times=2), "me")

    store = GrantStore.open(tmp_path / "state")
    assert store is not None
    with store:
        one, two = store.standing(present.now())
    assert (one.number, one.lasts_ns, one.by) == (number, 60 * SECOND_NS, "me")
    assert two.uses_left == 2
    assert told == ["refreshed", "refreshed"]


def test_what_no_run_asked_is_not_for_a_run(tmp_path: Path) -> None:
    make, told = makers(tmp_path)

    with pytest.raises(AnswerError, match="not asked by a run"):
        make(
            Subject(None, Scheme.HTTPS, TARGET, Access.READ),
            rule("a.test"),
            Reply(Verdict.RUN),
            "me",
        )
    with pytest.raises(AnswerError, match="has ended"):
        make(
            Subject("gone", Scheme.HTTPS, TARGET, Access.READ),
            rule("a.test"),
            Reply(Verdict.RUN),
            "me",
        )
    assert told == []


def test_the_shortest_time_is_a_grant_that_ends_at_once(tmp_path: Path) -> None:
    make, _ = makers(tmp_path)

    make(
        Subject(None, Scheme.HTTPS, TARGET, Access.READ),
        rule("a.test"),
        Reply(Verdict.FOR, seconds=1e-12),
        "me",
    )

    store = GrantStore.open(tmp_path / "state")
    assert store is not None
    with store:
        assert [grant.end(present.now()) for grant in store.standing(present.now())] == [End.TIME]
