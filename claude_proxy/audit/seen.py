"""What was seen: rows of the audit log as the attempts that a list is learned from."""

from collections.abc import Iterable, Iterator

from claude_proxy.audit.recorded_attempts import PlainKey, RowKey, subject_of
from claude_proxy.policy.learned_list import Seen


def seen_in(rows: Iterable[tuple[PlainKey, int]]) -> Iterator[Seen]:
    """Yield what was asked for, equal attempts of all runs counted, in the order of the first."""
    counts: dict[PlainKey, int] = {}
    for key, count in rows:
        of_any_run = key[1:]
        counts[of_any_run] = counts.get(of_any_run, 0) + count
    for key, count in counts.items():
        row = RowKey(None, *key)
        yield Seen(
            attempt=row.attempt(),
            subject=subject_of(row),
            allowed=row.is_allowed,
            reason=row.outcome,
            nowhere=row.came_to_nothing,
            times=count,
        )
