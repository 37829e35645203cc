"""Laws of answers as text: whatever is not exactly one is none."""

import pytest

from claude_proxy.control.answers import (
    AnswerError,
    Reply,
    Verdict,
    facts_of_question,
    facts_of_reply,
    facts_of_subject,
    reply_of,
    shown_time,
    subject_of,
)
from claude_proxy.policy.location import Location
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.questions import Access, Facts, Subject
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme
from claude_proxy.wire.authority import Authority

SUBJECT = Subject("r", Scheme.HTTPS, Authority.of("a.test", 443), Access.READ)


@pytest.mark.parametrize(
    ("given", "reply"),
    [
        ({"answer": "once"}, Reply(Verdict.ONCE)),
        ({"answer": "times", "times": 5}, Reply(Verdict.TIMES, times=5)),
        ({"answer": "for", "for": "1h"}, Reply(Verdict.FOR, seconds=3600.0)),
        ({"answer": "for", "for": 90}, Reply(Verdict.FOR, seconds=90.0)),
        ({"answer": "run"}, Reply(Verdict.RUN)),
        ({"answer": "always"}, Reply(Verdict.ALWAYS)),
        ({"answer": "no"}, Reply(Verdict.NO)),
        ({"answer": "never"}, Reply(Verdict.NEVER)),
    ],
)
def test_an_answer_is_read_and_written(given: dict[str, object], reply: Reply) -> None:
    assert reply_of(given) == reply
    assert reply_of(facts_of_reply(reply)) == reply


@pytest.mark.parametrize(
    "given",
    [
        None,
        "once",
        [],
        {},
        {"answer": "yes"},
        {"answer": True},
        {"answer": ["once"]},
        {"answer": "once", "times": 3},
        {"answer": "once", "host": "*"},
        {"answer": "times"},
        {"answer": "times", "times": 0},
        {"answer": "times", "times": True},
        {"answer": "times", "times": 2.5},
        {"answer": "times", "times": 10**9},
        {"answer": "for"},
        {"answer": "for", "for": "soon"},
        {"answer": "for", "for": 0},
        {"answer": "for", "for": -1},
        {"answer": "for", "for": float("nan")},
        {"answer": "for", "for": float("inf")},
        {"answer": "for", "for": True},
        {"answer": "for", "for": 1e9},
    ],
)
def test_anything_else_is_no_answer(given: object) -> None:
    with pytest.raises(AnswerError):
        reply_of(given)


def test_an_answer_says_what_it_is() -> None:
    shown = [str(reply) for reply in (Reply(Verdict.TIMES, times=3), Reply(Verdict.RUN))]

    assert shown == ["3 times", "this run"]
    assert str(Reply(Verdict.FOR, seconds=5400.0)) == "for 90m"
    assert [shown_time(each) for each in (1.5, 86400, 7200)] == ["1.5s", "1d", "2h"]


def test_only_a_yes_that_lasts_becomes_a_grant() -> None:
    assert not any(Reply(each).lasts for each in (Verdict.ONCE, Verdict.NO, Verdict.NEVER))
    assert Reply(Verdict.ALWAYS).lasts
    assert not Reply(Verdict.NEVER).allows


@pytest.mark.parametrize(
    "subject",
    [SUBJECT, Subject(None, RawScheme.TCP, Authority.of("2001:db8::1", 22), Access.TUNNEL)],
)
def test_a_subject_is_read_as_it_is_written(subject: Subject) -> None:
    assert subject_of(facts_of_subject(subject)) == subject


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        facts_of_subject(SUBJECT) | {"host": "*"},
        facts_of_subject(SUBJECT) | {"port": "x"},
    ],
)
def test_what_is_no_subject_is_refused(given: object) -> None:
    with pytest.raises(AnswerError):
        subject_of(given)


def test_a_program_is_asked_with_everything_that_matters() -> None:
    asking = Policy().asking_by_default(Location("a.yaml", 2, 1)).ask[0]
    asked = facts_of_question(Facts(SUBJECT, "GET", "/p?q", "curl", asking))

    assert asked["question"] == "GET https://a.test:443/p?q"
    assert (asked["program"], asked["rule"], asked["rule_source"]) == ("curl", "* asks", "a.yaml:2")
