"""Answers of the owner, as JSON and as words: once, n times, for a time, this run, always, never.

Fail closed: whatever is not exactly one of them is no answer. Pure.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from claude_proxy.config.option_values import parse_duration
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.policy.questions import Access, Facts, Subject
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme
from claude_proxy.wire.authority import Authority

MOST_TIMES = 1_000_000
MOST_REQUESTS = 5  # distinct requests of one question that are shown
_SHOWN_PATH = 512  # characters of each
LONGEST_S = 365 * 24 * 3600


class AnswerError(ClaudeProxyError):
    """A text that is no answer, or an answer that cannot be given."""


class Verdict(StrEnum):
    """What the owner may say."""

    ONCE = "once"  # what waits now, or its next try
    TIMES = "times"
    FOR = "for"
    RUN = "run"  # until the run ends
    ALWAYS = "always"  # in the list
    NO = "no"  # what waits now
    NEVER = "never"  # as long as the run lasts


_DENIALS = frozenset({Verdict.NO, Verdict.NEVER})


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    verdict: Verdict
    times: int | None = None
    seconds: float | None = None

    @property
    def allows(self) -> bool:
        """Whether it allows anything."""
        return self.verdict not in _DENIALS

    @property
    def lasts(self) -> bool:
        """Whether it is for more than what waits, so that it becomes a grant or an entry."""
        return self.allows and self.verdict is not Verdict.ONCE

    def __str__(self) -> str:
        if self.verdict is Verdict.TIMES:
            return "1 time" if self.times == 1 else f"{self.times} times"
        if self.verdict is Verdict.FOR and self.seconds is not None:
            return f"for {shown_time(self.seconds)}"
        return {Verdict.RUN: "this run"}.get(self.verdict, self.verdict.value)


def reply_of(found: Any) -> Reply:
    """Return the answer that JSON says; AnswerError if it says none."""
    if not isinstance(found, Mapping):
        raise AnswerError("the answer is not an object", fix='write {"answer": "once"}')
    given = dict(found)
    word = given.pop("answer", None)
    if not isinstance(word, str) or word not in set(Verdict):
        known = ", ".join(Verdict)
        raise AnswerError("the answer is unknown", fix=f"it is one of {known}")
    verdict = Verdict(word)
    times, seconds = None, None
    if verdict is Verdict.TIMES:
        times = _times(given.pop("times", None))
    elif verdict is Verdict.FOR:
        seconds = _seconds(given.pop("for", None))
    if given:
        name = next(iter(given))
        raise AnswerError(
            f"the answer has a key too many: {str(name)[:40]!r}",
            fix='print one object, such as {"answer": "once"}',
        )
    return Reply(verdict, times, seconds)


def facts_of_reply(reply: Reply) -> dict[str, Any]:
    """Return an answer as JSON."""
    found: dict[str, Any] = {"answer": reply.verdict.value}
    if reply.times is not None:
        found["times"] = reply.times
    if reply.seconds is not None:
        found["for"] = reply.seconds
    return found


def _times(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_TIMES:
        return value
    raise AnswerError(
        f"times is no number from 1 to {MOST_TIMES}",
        fix='write a whole number, such as {"answer": "times", "times": 5}',
    )


def _seconds(value: object) -> float:
    seconds = value
    if isinstance(value, str):
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            raise AnswerError(f"for is no time: {error}", fix='write it like "1h"') from None
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if number and 0 < float(seconds) <= LONGEST_S:  # type: ignore[arg-type]
        return float(seconds)  # type: ignore[arg-type]
    raise AnswerError("for is no time between a moment and a year", fix='write it like "1h"')


def shown_time(seconds: float) -> str:
    """Return a time as it is written: 90s, 10m, 1h, 2d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:g}s"


# --- subjects


def facts_of_subject(subject: Subject) -> dict[str, Any]:
    """Return what a question is about as JSON."""
    return {
        "run": subject.run,
        "scheme": subject.scheme.value,
        "host": subject.target.host,
        "port": subject.target.port,
        "access": subject.access.value,
    }


def subject_of(found: Any) -> Subject:
    """Return what JSON says a question is about; AnswerError if it says nothing."""
    try:
        run, scheme = found["run"], found["scheme"]
        return Subject(
            None if run is None else str(run),
            RawScheme.TCP if scheme == RawScheme.TCP.value else Scheme(scheme),
            Authority.of(found["host"], found["port"]),
            Access(found["access"]),
        )
    except (KeyError, TypeError, ValueError):
        raise AnswerError("this is about no question") from None


def facts_of_question(facts: Facts) -> dict[str, Any]:
    """Return what a program is asked, as JSON."""
    return {
        "question": facts.what,
        **facts_of_subject(facts.subject),
        "method": facts.method,
        "path": facts.path,
        "program": facts.program,
        "user_agent": facts.agent,
        "rule": None if facts.asking is None else str(facts.asking),
        "rule_source": None if facts.asking is None else str(facts.asking.source),
    }


def facts_of_requests(waiting: Sequence[tuple[Facts, int]]) -> dict[str, Any]:
    """Return the distinct requests that wait for one answer as JSON, and how many more there are.

    `waiting` is each of them, and how often it waits.
    """
    return {
        "requests": [
            {"method": facts.method, "path": _cut(facts.path), "waiting": count}
            for facts, count in waiting[:MOST_REQUESTS]
        ],
        "more_requests": max(0, len(waiting) - MOST_REQUESTS),
    }


def _cut(path: str) -> str:
    more = len(path) - _SHOWN_PATH
    return path if more <= 0 else f"{path[:_SHOWN_PATH]}... ({more} more characters)"
