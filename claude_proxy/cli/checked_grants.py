"""Grants in force that allow what a list denies, as `check` says them.

One judge: each is asked by the list's policy with its rules on top. Nothing is spent, and a store
that cannot be read allows nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from claude_proxy.cli.check_findings import Findings
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.grants import SECOND_NS, Grant, GrantKind, Moment
from claude_proxy.policy.policy import Policy

_MOST = 20  # grants that are named

type Judge = Callable[[Policy], Decision]
type Find = Callable[[Decision, Policy], Findings]


@dataclass(frozen=True, slots=True)
class Opening:
    """A grant that allows what is asked."""

    grant: Grant
    is_denied_by_project: bool  # in runs of the project that was asked about


@dataclass(frozen=True, slots=True)
class Openings:
    """The grants that allow what a list denies."""

    several: tuple[Opening, ...] = ()
    now: Moment | None = None
    problem: str | None = None  # why none could be read

    @property
    def for_anybody(self) -> bool:
        """Whether a client that belongs to no run is allowed."""
        return any(each.grant.concerns(None, None) for each in self.several)

    def facts(self) -> list[dict[str, Any]]:
        """Return them as JSON has them."""
        from claude_proxy.control import grant_texts  # noqa: PLC0415 - few are denied

        now = self.now
        return [
            grant_texts.as_json(each.grant, now) | {"denied_by_project": each.is_denied_by_project}
            for each in self.several
            if now is not None
        ]

    def lines(self) -> Iterator[str]:
        """Yield a line for each."""
        if self.now is None:
            return
        for each in self.several[:_MOST]:
            but = ", but not in runs of this project" if each.is_denied_by_project else ""
            yield f"  {_text(each.grant, self.now)}{but}"
        if (more := len(self.several) - _MOST) > 0:
            yield f"  and {more} more grants allow it: claude-proxy grants"


def _text(grant: Grant, now: Moment) -> str:
    from claude_proxy.control import grant_texts  # noqa: PLC0415 - as above

    parts = [f"left: {grant_texts.left_of(grant, now)}"]
    if (ends_ns := grant.ends_ns) is not None:
        ends = datetime.fromtimestamp(ends_ns / SECOND_NS).astimezone()
        parts.insert(0, f"until {ends:%Y-%m-%d %H:%M:%S}")
    what = f"grant {grant.number} allows it"
    if grant.kind is GrantKind.OPEN:
        what = f"grant {grant.number}, which opens everything, allows it"
    return f"{what} {harmless(grant.whom)} ({', '.join(parts)})"


def openings_of(
    policy: Policy, denied: Findings, judge: Judge, find: Find, statedir: Path | None
) -> Openings:
    """Return the grants in force by which the policy allows what it denies.

    `denied` is what is denied besides the policy, and `find` looks for that again. `statedir` has
    the grants; None: where the running proxies keep theirs.
    """
    from claude_proxy.cli import grant_making  # noqa: PLC0415 - few are denied
    from claude_proxy.control import present  # noqa: PLC0415 - as above
    from claude_proxy.policy.granted_policy import with_grants  # noqa: PLC0415 - as above

    try:
        grants: Sequence[Grant] = grant_making.standing(grant_making.scope_of(statedir, None, None))
    except (ClaudeProxyError, OSError) as error:
        return Openings(problem=f"the grants in force cannot be read: {error}")
    found = []
    for grant in grants:
        opened = with_grants(policy, [grant])
        decision = judge(opened)
        if not decision.allowed:
            continue
        rest = find(decision, opened)
        # What the project's own file denies beside the list's yes is denied with a grant, too.
        is_no_help = denied.project is not None and rest.project is not None
        if rest.address_decision is None and not is_no_help:
            found.append(Opening(grant, rest.project is not None))
    return Openings(tuple(found), present.now())
