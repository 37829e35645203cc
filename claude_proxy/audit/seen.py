"""What was seen: rows of the audit log as the attempts that a list is learned from."""

from collections.abc import Iterable, Iterator
from typing import Any

from claude_proxy.audit.recorded_attempts import BEFORE_KEY, PlainRow, RowKey, subject_of
from claude_proxy.policy.learned_list import Seen
from claude_proxy.policy.reason import Reason


def seen_in(rows: Iterable[PlainRow]) -> Iterator[Seen]:
    """Yield what was asked for, equal attempts of all runs counted, in the order of the first.

    What the owner was asked about and refused is left out.
    """
    counts: dict[tuple[Any, ...], int] = {}
    for row in rows:
        of_any_run = row[BEFORE_KEY + 1 :]
        counts[of_any_run] = counts.get(of_any_run, 0) + row[BEFORE_KEY - 1]
    for of_any_run, times in counts.items():
        key = RowKey(None, *of_any_run)
        if key.outcome == Reason.OWNER_REFUSED:
            continue
        yield Seen(
            attempt=key.attempt(),
            subject=subject_of(key),
            allowed=key.is_allowed,
            reason=key.outcome,
            nowhere=key.came_to_nothing,
            times=times,
            granted=key.is_allowed and bool(key.granted),
        )
