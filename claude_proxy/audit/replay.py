"""Replay: recorded attempts judged again by another policy, and which would be decided differently.

One judge: the policy decides, and nothing is sent. What a decision needed and is not recorded (a
header field, a body, a login) cannot be judged again, and is counted as such.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import field
from enum import StrEnum
from heapq import nlargest
from typing import Any, Final, NamedTuple

from claude_proxy.audit.recorded_attempts import BEFORE_KEY, PlainRow, RowKey, subject_of
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.recorded_attempt import (
    JUDGED_AGAIN,
    judged_address,
    judged_without_address,
)
from claude_proxy.wire.address import Address
from claude_proxy.wire.authority import Authority

# What became of what the owner was, or should have been, asked about.
_ASKED: Final = frozenset(
    {
        Reason.ASK,
        Reason.ANSWERED,
        Reason.NOT_ANSWERED,
        Reason.OWNER_REFUSED,
        Reason.TOO_MANY_QUESTIONS,
    }
)


class Change(StrEnum):
    """How an attempt would be decided differently."""

    DENIED = "denied"  # it was allowed, and would be denied
    ALLOWED = "allowed"  # it was denied, and would be allowed
    ASKED = "asked"  # nobody was asked, and now the owner would be
    OTHER_REASON = "other-reason"  # it was denied, and would be for another reason


class Changed(NamedTuple):
    """What would be decided differently, and how often it was asked for."""

    run: str | None
    change: Change
    subject: str  # "GET https://example.com/path", as it was recorded
    was: str  # the reason then
    now: str
    rule: str | None  # what would decide it
    times: int


class _Answer(NamedTuple):
    """What is decided now, and whether that is something else; the same for equal rows."""

    change: Change | None
    was: str
    now: str | None  # the reason; None: it cannot be said
    rule: str | None


@dataclass(slots=True, eq=False)
class _Place:
    """A target, and the answers about it so far; a log holds the same requests again and again."""

    by_path: bool  # whether the path of a request matters
    answers: dict[tuple[Any, ...], _Answer] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Run:
    """What would change in a run: how often, and which rows."""

    counts: dict[Change, int] = field(default_factory=lambda: dict.fromkeys(Change, 0))
    changed: list[tuple[PlainRow, _Answer]] = field(default_factory=list)


@dataclass(slots=True)
class Replay:
    """What a policy would decide about recorded attempts."""

    policy: Policy
    attempts: int = 0  # in the log; a row may stand for many
    not_judged: Counter[str] = field(default_factory=Counter)  # by the reason then
    _runs: dict[str | None, _Run] = field(default_factory=dict)
    _places: dict[str, _Place] = field(default_factory=dict)
    _addresses: dict[tuple[Authority, Address, bool], Decision] = field(default_factory=dict)

    def judge(self, rows: Iterable[PlainRow]) -> None:
        """Judge all that was recorded."""
        places, runs, attempts = self._places, self._runs, 0
        for row in rows:
            _, _, times, run, phase, scheme, target, method, path = row[:9]
            place = places.get(target)
            if place is None:
                place = places[target] = self._place_of(row)
            rest = path if place.by_path or "?" in path else path[:1]
            asked = (rest, method, phase, scheme, *row[9:])
            answer = place.answers.get(asked)
            if answer is None:
                answer = place.answers[asked] = self._answer(RowKey._make(row[BEFORE_KEY:]))
            attempts += times
            if answer.change is not None:
                found = runs.get(run)
                if found is None:
                    found = runs[run] = _Run()
                found.counts[answer.change] += times
                found.changed.append((row, answer))
            elif answer.now is None:
                self.not_judged[answer.was] += times
        self.attempts += attempts

    def counts(self, run: str | None) -> dict[Change, int]:
        """Return how often something would change in a run."""
        return self._runs[run].counts

    def changed(self, run: str | None, most: int) -> list[Changed]:
        """Return what would change in a run, at most so many kinds, the most frequent first."""
        kinds: dict[tuple[str, _Answer], int] = {}
        for row, answer in self._runs[run].changed:
            kind = (subject_of(RowKey._make(row[BEFORE_KEY:])), answer)
            kinds[kind] = kinds.get(kind, 0) + row[BEFORE_KEY - 1]
        found = nlargest(most, kinds.items(), key=lambda each: each[1])
        return [
            Changed(run, answer.change, subject, answer.was, answer.now, answer.rule, times)
            for (subject, answer), times in found
            if answer.change is not None and answer.now is not None
        ]

    def runs(self) -> list[str | None]:
        """Return the runs in which something would change, the one with the most first."""
        return sorted(self._runs, key=lambda run: -sum(self._runs[run].counts.values()))

    def _place_of(self, row: PlainRow) -> _Place:
        attempt = RowKey._make(row[BEFORE_KEY:]).attempt()
        if attempt is None:
            return _Place(by_path=True)
        policies = (self.policy, self.policy.as_answered())
        return _Place(any(policy.judges_paths(attempt.target) for policy in policies))

    def _answer(self, key: RowKey) -> _Answer:
        decision = self._decision(key)
        if decision is None:
            return _Answer(None, key.outcome, None, None)
        rule = None if decision.rule is None else str(decision.rule.source)
        return _Answer(_change_of(key, decision), key.outcome, decision.reason.value, rule)

    def _decision(self, key: RowKey) -> Decision | None:
        """Return what would be decided; None if that cannot be said."""
        attempt = key.attempt()
        if attempt is None or key.outcome not in JUDGED_AGAIN:
            return None
        decision = judged_without_address(self.policy, attempt)
        if attempt.address is None or not (decision.allowed or decision.asks):
            return decision
        target, address = attempt.target, attempt.address
        place = (target, address, decision.asks)
        found = self._addresses.get(place)
        if found is None:
            found = judged_address(self.policy, target, address, decision)
            self._addresses[place] = found
        return decision if found.allowed or found.asks else found


def _change_of(key: RowKey, decision: Decision) -> Change | None:
    if decision.asks:
        # A grant may be what was answered then.
        was_asked = key.outcome in _ASKED or (key.is_allowed and key.granted)
        return None if was_asked else Change.ASKED
    if key.is_allowed:
        return None if decision.allowed else Change.DENIED
    if decision.allowed:
        return Change.ALLOWED
    same = key.outcome in {decision.reason, Reason.RULE_WITHDRAWN}
    return None if same else Change.OTHER_REASON
