"""Adds up what the answers of the Messages API have cost, as the audit log holds it.

The law it keeps: every process that writes to one log counts into one sum, and what it is not
known of who asked for it is counted against each who could have. The statements are here; who
has a connection asks them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from claude_proxy.audit.escape import storable
from claude_proxy.events import Usage

# A model's name comes from upstream, and so do the numbers: sums of these stay within what SQLite
# adds up, for some two million answers.
MODEL_BOUND: Final = 128
MOST_TOKENS: Final = 1 << 40

# How old the answers may be that a ceiling counts: a day, with an hour more where clocks change.
COUNTED_NS: Final = 2 * 86_400 * 1_000_000_000

# Each answer keeps who asked for it: whoever floods the log until the oldest decisions make way
# must not empty his account by that.
INSERT_USAGE: Final = (
    "INSERT OR REPLACE INTO usage SELECT one.id, d.client, d.credential, ?, ?, ?, ?, ?"
    " FROM (SELECT ? AS id) one LEFT JOIN decision d ON d.id = one.id"
)
TOKENS_SINCE: Final = (
    "SELECT coalesce(sum(tokens_in + tokens_out + cache_written + cache_read), 0) FROM usage"
    " WHERE decision >= ? AND (credential = ? OR client IS NULL)"
)
REQUESTS_SINCE: Final = (
    "SELECT count(*) FROM decision"
    " WHERE id >= ? AND credential = ? AND allowed AND phase = 'request'"
)


class UsageGrouping(StrEnum):
    """What usage is added up by."""

    DAY = "day"  # of the reader's own time, by the moment at which a request began
    RUN = "run"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What a number of answers have cost together."""

    name: str | None  # the day, the run, the model; None: of what has none
    first: int  # the id of the first request, which is also its time
    last: int
    requests: int
    tokens_in: int
    tokens_out: int
    cache_written: int
    cache_read: int

    @property
    def tokens(self) -> int:
        """All of them together, as a ceiling counts them."""
        return self.tokens_in + self.tokens_out + self.cache_written + self.cache_read


_NAMES: Final = {
    UsageGrouping.DAY: "date(u.decision / 1000000000, 'unixepoch', 'localtime')",
    # As `RunFilter` reads it: between the first ", run " and the next ": ".
    UsageGrouping.RUN: "substr({rest}, 1, instr({rest}, ': ') - 1)".format(
        rest="substr(u.client, nullif(instr(u.client, ', run '), 0) + 6)"
    ),
    UsageGrouping.MODEL: "nullif(u.model, '')",
}


def sums_by(per: UsageGrouping, condition: str) -> str:
    """Return the statement whose rows are Sums, those used last at the end."""
    # Only words of ours are put together.
    return (
        f"SELECT {_NAMES[per]} AS name, min(u.decision), max(u.decision), count(*),"  # noqa: S608
        " sum(u.tokens_in), sum(u.tokens_out), sum(u.cache_written), sum(u.cache_read)"
        f" FROM usage u WHERE {condition} GROUP BY name ORDER BY max(u.decision)"
    )


def bounded(usage: Usage) -> Usage:
    """Return `usage` such as the log holds it, whatever an upstream says."""
    return Usage(
        storable(usage.model, MODEL_BOUND),
        _counted(usage.tokens_in),
        _counted(usage.tokens_out),
        _counted(usage.cache_written),
        _counted(usage.cache_read),
    )


def _counted(tokens: int) -> int:
    return min(max(tokens, 0), MOST_TOKENS)
