"""Difference of two policies: what one allows and the other does not, as lines that a person reads.

One judge: what is compared is what the policies decide. Pure.
"""

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy import coverage
from claude_proxy.policy.policy import Policy


@dataclass(frozen=True, slots=True)
class Opening:
    """Something that one policy allows and the other does not, like a rule."""

    text: str  # "GET, HEAD /simple/** on https://a.example"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes between two policies; empty: nothing."""

    opens: tuple[Opening, ...] = ()
    closes: tuple[Opening, ...] = ()


def difference(old: Policy, new: Policy) -> Difference:
    """Return what `new` allows and `old` does not, and the other way round."""
    return Difference(_opened(old, new), _opened(new, old))


def _opened(old: Policy, new: Policy) -> tuple[Opening, ...]:
    return tuple(
        Opening(str(rule)) for rule in new.allow if coverage.first_covering(old.allow, rule) is None
    )
