"""Presets that cover recorded requests: how much of each was used, and whether it would open more.

Law kept: never much wider than what was used. A preset replaces entries only if most of
its rules were used, none of them lets a client send anything anywhere on a host, and none of its
restrictions stands against what was seen. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.policy.path_templates import ENOUGH
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.recorded_attempt import Form, RecordedAttempt, judged
from claude_proxy.policy.rules import Rule
from claude_proxy.wire.authority import Authority

_READING: Final = frozenset({"GET", "HEAD"})
_MOST_TRIED: Final = 20_000  # attempts, each of which is judged by every preset


@dataclass(frozen=True, slots=True)
class PresetUse:
    """What a preset would cover, and how much of it was used."""

    name: str
    attempts: frozenset[RecordedAttempt]
    used: int  # of its rules
    rules: int
    conflict: str | None  # what was seen, and its restrictions would deny
    writes: str | None  # a host of it to which anything may be sent
    taken: bool = False

    @property
    def fits(self) -> bool:
        """Whether it opens little more than was used."""
        is_used = 2 * self.used >= self.rules and len(self.attempts) >= ENOUGH
        return is_used and self.conflict is None and self.writes is None


def preset_uses(
    presets: Mapping[str, Policy],
    wanted: Sequence[RecordedAttempt],
    everything: Sequence[RecordedAttempt],
    named: frozenset[str],
    *,
    may_take: bool,
) -> list[PresetUse]:
    """Return the presets that cover some of what is wanted, the most used first.

    Those that are `named` are taken, and those that fit, unless others cover the same already.
    """
    requests = [each for each in wanted if each.form is Form.REQUEST][:_MOST_TRIED]
    by_target, all_by_target = _by_target(requests), _by_target(everything[:_MOST_TRIED])
    found = []
    for name, preset in presets.items():
        use = _use_of(name, preset, by_target, all_by_target)
        if use is not None:
            found.append(use)
    found.sort(key=lambda use: (use.name not in named, -len(use.attempts), use.rules, use.name))
    rest, chosen = set(requests), []
    for use in found:
        wins = use.name in named or (may_take and use.fits and len(use.attempts & rest) >= ENOUGH)
        taken = wins and bool(use.attempts & rest)
        if taken:
            rest -= use.attempts
        chosen.append(replace(use, taken=taken))
    return chosen


def vouching(presets: Mapping[str, Policy], attempt: RecordedAttempt) -> str | None:
    """Return a preset that allows every path of the method that was asked for, on its host."""
    for name, preset in presets.items():
        if preset.restrictions_for(attempt.target) is not None:
            continue
        decision = judged(preset, attempt)
        rule = decision.rule
        if decision.allowed and rule is not None and rule.methods and rule.paths is None:
            return name
    return None


type _ByTarget = Mapping[Authority, Sequence[RecordedAttempt]]


def _by_target(attempts: Iterable[RecordedAttempt]) -> _ByTarget:
    """Return requests by their target: most presets have nothing to say of most targets."""
    found: dict[Authority, list[RecordedAttempt]] = {}
    for each in attempts:
        if each.form is Form.REQUEST:
            found.setdefault(each.target, []).append(each)
    return found


def _use_of(
    name: str, preset: Policy, requests: _ByTarget, everything: _ByTarget
) -> PresetUse | None:
    covered, used = set(), set()
    for target, attempts in requests.items():
        if not preset.decide_connect(target).allowed:
            continue
        for attempt in attempts:
            decision = judged(preset, attempt)
            if decision.allowed:
                covered.add(attempt)
                used.add(decision.rule)
    if not covered:
        return None
    conflict = _conflict(preset, everything) if preset.restrictions else None
    writes = next((rule.name for rule in preset.allow if _is_for_writing(rule)), None)
    return PresetUse(name, frozenset(covered), len(used), len(preset.allow), conflict, writes)


def _conflict(preset: Policy, everything: _ByTarget) -> str | None:
    """Return what was seen, and the restrictions of a preset would deny."""
    for target, attempts in everything.items():
        if preset.restrictions_for(target) is None:
            continue
        for attempt in attempts:
            if not judged(preset, attempt).allowed:
                return f"{attempt.method} {attempt.path} on {target.host}"
    return None


def _is_for_writing(rule: Rule) -> bool:
    """Tell whether a rule lets a client send whatever it wants to a host."""
    return rule.paths is None and (rule.methods is None or not rule.methods <= _READING)
