"""Token usage: the tokens that responses of the Messages API report, added up from the audit log.

Law: every process that writes to one log counts into one sum, and usage whose caller is unknown is
counted against each caller who could have caused it. The statements are here; the holder of a
connection executes them.
"""

from enum import StrEnum
from typing import Final

from claude_proxy.audit.escape import storable
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.events import Usage

# A model's name and the numbers come from upstream. Sums of numbers within this bound stay within
# what SQLite can add up, for some two million responses.
MODEL_BOUND: Final = 128
MOST_TOKENS: Final = 1 << 40

# The age of responses that a ceiling may count: a day, with room for a change of clocks.
COUNTED_NS: Final = 2 * 86_400 * 1_000_000_000

# The model of a row that reserves tokens for a request under way. The usage of its response
# replaces it; if the process ends before that, it stays: the provider may have counted the tokens.
RESERVED: Final = "\x1freserved"

# No id is below its time, so that a condition on the time is also one on the id, which is indexed.
# Each row keeps its caller: flooding the log until the oldest decisions are removed must not
# reset a caller's usage.
INSERT_USAGE: Final = (
    "INSERT OR REPLACE INTO usage SELECT one.id, d.client, d.credential, ?, ?, ?, ?, ?, d.run, d.at"
    " FROM (SELECT ? AS id) one LEFT JOIN decision d ON d.id = one.id"
)
TOKENS_SINCE: Final = (
    "SELECT coalesce(sum(tokens_in + tokens_out + cache_written + cache_read), 0) FROM usage"
    " WHERE decision >= :since AND coalesce(at, decision) >= :since"
    " AND (credential = :credential OR client IS NULL)"
)
RESERVED_SINCE: Final = f"{TOKENS_SINCE} AND model = '{RESERVED}'"
# Whether a request may reserve tokens beside what is used and reserved with its credential.
TOKENS_BESIDE: Final = TOKENS_SINCE.replace(
    ":credential", "(SELECT credential FROM decision WHERE id = :decision)"
)
RELEASE: Final = f"DELETE FROM usage WHERE decision = ? AND model = '{RESERVED}'"  # noqa: S608
REQUESTS_SINCE: Final = (
    "SELECT count(*) FROM decision"
    " WHERE id >= :since AND coalesce(at, id) >= :since AND credential = :credential AND allowed"
    " AND phase = 'request'"
)


class UsageGrouping(StrEnum):
    """What usage is grouped by."""

    DAY = "day"  # in the reader's time zone, by the time at which a request began
    RUN = "run"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class UsageSum:
    """The total usage of a group of responses."""

    name: str | None  # the day, the run or the model; None: there is none
    first: int  # when the first request began, in nanoseconds since 1970
    last: int
    requests: int
    tokens_in: int
    tokens_out: int
    cache_written: int
    cache_read: int

    @property
    def tokens(self) -> int:
        """The sum of all kinds of tokens, as a ceiling counts them."""
        return self.tokens_in + self.tokens_out + self.cache_written + self.cache_read


_TIME: Final = "coalesce(u.at, u.decision)"
_NAMES: Final = {
    UsageGrouping.DAY: f"date({_TIME} / 1000000000, 'unixepoch', 'localtime')",
    UsageGrouping.RUN: "u.run",
    UsageGrouping.MODEL: "nullif(u.model, '')",
}


def sums_by(per: UsageGrouping, condition: str) -> str:
    """Return the statement whose rows are UsageSums, the most recently used last."""
    # Only constants of this module are joined.
    return (
        f"SELECT {_NAMES[per]} AS name, min({_TIME}), max({_TIME}), count(*),"  # noqa: S608
        " sum(u.tokens_in), sum(u.tokens_out), sum(u.cache_written), sum(u.cache_read)"
        f" FROM usage u WHERE u.model <> '{RESERVED}' AND {condition}"
        " GROUP BY name ORDER BY max(u.decision)"
    )


def bounded(usage: Usage) -> Usage:
    """Return `usage` within the bounds of the log, whatever an upstream reports."""
    return Usage(
        "" if usage.model == RESERVED else storable(usage.model, MODEL_BOUND),
        _counted(usage.tokens_in),
        _counted(usage.tokens_out),
        _counted(usage.cache_written),
        _counted(usage.cache_read),
    )


def _counted(tokens: int) -> int:
    return min(max(tokens, 0), MOST_TOKENS)
