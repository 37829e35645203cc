"""Lines about what a change of a policy opens and closes, for every command that shows one."""

from collections.abc import Iterator, Sequence
from typing import Any

from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.policy.comparison.openings import Opening
from claude_proxy.policy.difference import Difference

NOTHING = "opens nothing"


def lines_of(difference: Difference, *, most: int | None = None) -> Iterator[str]:
    """Yield what is opened, asked about and closed; `most` lines of each, and a count of the rest.

    What is opened is always said, "opens nothing" if it is nothing.
    """
    if not difference.opens:
        yield NOTHING
    yield from _some("opens", difference.opens, most)
    yield from _some("opens once you say yes to it", difference.asks, most)
    yield from _some("closes", difference.closes, most)


def opened_lines(difference: Difference, *, most: int | None = None) -> Iterator[str]:
    """Yield what is opened or asked about."""
    yield from lines_of(Difference(difference.opens, (), difference.asks), most=most)


def facts_of(difference: Difference) -> dict[str, Any]:
    """Return a difference as values for JSON."""
    return {
        "opens": [each.facts() for each in difference.opens],
        "asks": [each.facts() for each in difference.asks],
        "closes": [each.facts() for each in difference.closes],
    }


def _some(word: str, found: Sequence[Opening], most: int | None) -> Iterator[str]:
    if not found:
        return
    yield f"{word}:"
    shown = found if most is None or len(found) <= most + 1 else found[:most]
    for each in shown:
        yield f"  {harmless(str(each))}"
    if more := len(found) - len(shown):
        yield f"  and {more} more"
