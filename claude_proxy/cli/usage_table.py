"""Usage of the Messages API as a table or as JSON; pure.

A model's name comes from upstream and is escaped, so that it cannot send control codes.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from claude_proxy.audit.escape import escape_field
from claude_proxy.audit.sinks import encoded, rfc3339
from claude_proxy.audit.usage import UsageGrouping, UsageSum

_NUMBERS: Final = ("REQUESTS", "IN", "OUT", "CACHE WRITTEN", "CACHE READ", "TOKENS")
_TOTAL: Final = "total"
_NOTHING: Final = "-"
# A longer name shifts only its own numbers.
_NAME_WIDTH: Final = 48


def lines_of(per: UsageGrouping, sums: Sequence[UsageSum]) -> Iterator[str]:
    """Yield a heading, a line for each sum, and a total."""
    columns = list(zip(*map(_numbers_of, sums), strict=True))
    totals = [sum(column) for column in columns]
    rows = [
        (per.value.upper(), _NUMBERS),
        *((_name_of(one), _spelled(_numbers_of(one))) for one in sums),
        (_TOTAL, _spelled(totals)),
    ]
    # No number is longer than the sum of its column.
    widths = [max(len(name), len(f"{most:,}")) for name, most in zip(_NUMBERS, totals, strict=True)]
    names = min(_NAME_WIDTH, max(len(name) for name, _ in rows))
    for name, numbers in rows:
        cells = (number.rjust(width) for number, width in zip(numbers, widths, strict=True))
        yield "  ".join((name.ljust(names), *cells))


def json_lines_of(per: UsageGrouping, sums: Sequence[UsageSum]) -> Iterator[str]:
    """Yield one JSON object for each sum."""
    for one in sums:
        yield encoded(
            {
                per.value: one.name,
                "requests": one.requests,
                "tokens_in": one.tokens_in,
                "tokens_out": one.tokens_out,
                "cache_written": one.cache_written,
                "cache_read": one.cache_read,
                "tokens": one.tokens,
                "first": rfc3339(one.first),
                "last": rfc3339(one.last),
            }
        )


def _name_of(one: UsageSum) -> str:
    return _NOTHING if one.name is None else escape_field(one.name)


def _numbers_of(one: UsageSum) -> tuple[int, ...]:
    return (
        one.requests,
        one.tokens_in,
        one.tokens_out,
        one.cache_written,
        one.cache_read,
        one.tokens,
    )


def _spelled(numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"{number:,}" for number in numbers)
