"""Replay: recorded attempts judged again by another policy, and which would be decided differently.

One judge: the policy decides, and nothing is sent. What a decision needed and is not recorded (a
header field, a body, a login) cannot be judged again, and is counted as such.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import field
from enum import StrEnum
from heapq import nlargest
from typing import NamedTuple

from claude_proxy.audit.recorded_attempts import PlainKey, RowKey, subject_of
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


class Change(StrEnum):
    """How an attempt would be decided differently."""

    DENIED = "denied"  # it was allowed, and would be denied
    ALLOWED = "allowed"  # it was denied, and would be allowed
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


@dataclass(slots=True)
class Replay:
    """What a policy would decide about recorded attempts."""

    policy: Policy
    attempts: int = 0  # in the log; a row may stand for many
    not_judged: Counter[str] = field(default_factory=Counter)  # by the reason then
    # By run and change, how often.
    counts: Counter[tuple[str | None, Change]] = field(default_factory=Counter)
    _changed: dict[str | None, list[tuple[PlainKey, _Answer, int]]] = field(default_factory=dict)
    # The answers so far; a log holds the same requests again and again.
    _answers: dict[PlainKey, _Answer] = field(default_factory=dict)
    _addresses: dict[tuple[Authority, Address], Decision] = field(default_factory=dict)
    _by_path: dict[str, bool] = field(default_factory=dict)

    def judge(self, rows: Iterable[tuple[PlainKey, int]]) -> None:
        """Judge all that was recorded."""
        answers, by_path = self._answers, self._by_path
        for key, count in rows:
            target, path = key[3], key[5]
            matters = by_path.get(target)
            if matters is None:
                matters = by_path[target] = self._judges_paths(key)
            asked = key[1:] if matters or "?" in path else (*key[1:5], path[:1], *key[6:])
            answer = answers.get(asked)
            if answer is None:
                answer = answers[asked] = self._answer(RowKey._make(key))
            self.attempts += count
            if answer.change is not None:
                self.counts[key[0], answer.change] += count
                self._changed.setdefault(key[0], []).append((key, answer, count))
            elif answer.now is None:
                self.not_judged[RowKey._make(key).outcome] += count

    def changed(self, run: str | None, most: int) -> list[Changed]:
        """Return what would change in a run, at most so many kinds, the most frequent first."""
        kinds: dict[tuple[str, _Answer], int] = {}
        for key, answer, count in self._changed.get(run, ()):
            kind = (subject_of(RowKey._make(key)), answer)
            kinds[kind] = kinds.get(kind, 0) + count
        found = nlargest(most, kinds.items(), key=lambda each: each[1])
        return [
            Changed(run, answer.change, subject, answer.was, answer.now, answer.rule, times)
            for (subject, answer), times in found
            if answer.change is not None and answer.now is not None
        ]

    def runs(self) -> list[str | None]:
        """Return the runs in which something would change, the one with the most first."""
        totals: Counter[str | None] = Counter()
        for (run, _), count in self.counts.items():
            totals[run] += count
        return [run for run, _ in totals.most_common()]

    def _judges_paths(self, key: PlainKey) -> bool:
        attempt = RowKey._make(key).attempt()
        return attempt is None or self.policy.judges_paths(attempt.target)

    def _answer(self, row: RowKey) -> _Answer:
        decision = self._decision(row)
        if decision is None:
            return _Answer(None, row.outcome, None, None)
        rule = None if decision.rule is None else str(decision.rule.source)
        change = _change_of(row, decision)
        return _Answer(change, row.outcome, decision.reason.value, rule)

    def _decision(self, row: RowKey) -> Decision | None:
        """Return what would be decided; None if that cannot be said."""
        attempt = row.attempt()
        if attempt is None or row.outcome not in JUDGED_AGAIN:
            return None
        decision = judged_without_address(self.policy, attempt)
        if not decision.allowed or attempt.address is None:
            return decision
        place = (attempt.target, attempt.address)
        found = self._addresses.get(place)
        if found is None:
            found = self._addresses[place] = judged_address(self.policy, *place, decision)
        return decision if found.allowed else found


def _change_of(row: RowKey, decision: Decision) -> Change | None:
    if row.is_allowed:
        return None if decision.allowed else Change.DENIED
    if decision.allowed:
        return Change.ALLOWED
    same = row.outcome in {decision.reason, Reason.RULE_WITHDRAWN}
    return None if same else Change.OTHER_REASON
