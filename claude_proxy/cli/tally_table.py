"""Tallies of the audit log as a table or as JSON; pure.

A host comes from a client and is escaped, so that it cannot send control codes.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from claude_proxy.audit.escape import escape_field
from claude_proxy.audit.sinks import encoded, rfc3339
from claude_proxy.audit.tally import Grouping, Tally
from claude_proxy.cli.short_figures import UNKNOWN, local_time

_NUMBERS: Final = ("DENIED", "FAILED", "ALLOWED")
# A longer name shifts only its own row.
_NAME_WIDTH: Final = 48
_MOST_REASONS: Final = 3


def lines_of(per: Grouping, tallies: Sequence[Tally]) -> Iterator[str]:
    """Yield a heading and a line for each tally."""
    names = [_name_of(one) for one in tallies]
    width = min(_NAME_WIDTH, max(len(per.value), *map(len, names)))
    reasons = "" if per is Grouping.REASON else "  REASONS"
    yield f"{per.value.upper():{width}}  {'  '.join(f'{name:>7}' for name in _NUMBERS)}" + (
        f"  {'LAST':19}{reasons}".rstrip()
    )
    for name, one in zip(names, tallies, strict=True):
        numbers = "  ".join(f"{count:>7,}" for count in (one.denied, one.failed, one.allowed))
        shown = "" if per is Grouping.REASON else _reasons_of(one)
        yield f"{name:{width}}  {numbers}  {local_time(one.last)}  {shown}".rstrip()


def json_lines_of(per: Grouping, tallies: Sequence[Tally]) -> Iterator[str]:
    """Yield one JSON object for each tally."""
    for one in tallies:
        yield encoded(
            {
                per.value: one.name,
                "denied": one.denied,
                "failed": one.failed,
                "allowed": one.allowed,
                "last": rfc3339(one.last),
                "reasons": one.reasons,
            }
        )


def _name_of(one: Tally) -> str:
    return UNKNOWN if one.name is None else escape_field(one.name)


def _reasons_of(one: Tally) -> str:
    ordered = sorted(one.reasons, key=lambda reason: -one.reasons[reason])
    shown = ", ".join(map(escape_field, ordered[:_MOST_REASONS]))
    more = len(ordered) - _MOST_REASONS
    return shown if more <= 0 else f"{shown} and {more} more"
