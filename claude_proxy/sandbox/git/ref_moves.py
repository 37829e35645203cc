"""Moves of the host's refs after a run: what may follow the run's, and what is only kept; pure.

Law kept: nothing is lost on either side. A ref follows if the host has not moved it since both
sides had the same, or if that drops no commit; everything else is kept beside it and said.
"""

from collections.abc import Callable, Mapping
from dataclasses import field
from enum import StrEnum

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox.git.ref_names import BRANCHES, TAGS


class Move(StrEnum):
    """What happens to the host's ref of the same name."""

    SAME = "same"  # it has the object already
    CREATE = "create"
    FORWARD = "forward"
    REPLACE = "replace"  # the run rewrote commits that were brought over from it
    CONTAINED = "contained"  # the host's has the run's commits, and more
    DIVERGED = "diverged"
    REWRITTEN = "rewritten"  # the run dropped commits that the host had at its start
    DELETED = "deleted"  # the host has deleted it meanwhile
    KEPT = "kept"  # its name must not be created, or it is neither branch nor tag

    @property
    def moves(self) -> bool:
        """Whether the host's ref gets the run's object."""
        return self in {Move.CREATE, Move.FORWARD, Move.REPLACE}


@dataclass(frozen=True, slots=True)
class Known:
    """What both sides had in common: at the start of a run, and when it was last brought over."""

    head: str = ""  # HEAD: the name of a branch, or an object
    start: Mapping[str, str] = field(default_factory=dict)
    last: Mapping[str, str] = field(default_factory=dict)


type Descends = Callable[[str, str], bool]  # whether the second object descends from the first


def move_of(name: str, ours: str | None, theirs: str, known: Known, descends: Descends) -> Move:
    """Decide what happens to a ref of the host (`ours`) for a run's (`theirs`)."""
    if ours == theirs:
        return Move.SAME
    if not name.startswith((BRANCHES, TAGS)):
        return Move.KEPT
    if ours is None:
        return Move.DELETED if name in known.last else Move.CREATE
    if name.startswith(TAGS):
        return Move.DIVERGED
    return _branch_move(name, ours, theirs, known, descends)


def _branch_move(name: str, ours: str, theirs: str, known: Known, descends: Descends) -> Move:
    if descends(ours, theirs):
        return Move.FORWARD
    if ours != known.last.get(name):
        return Move.CONTAINED if descends(theirs, ours) else Move.DIVERGED
    # Only the run has moved it, but not forward. What it rewrites must be its own.
    start = known.start.get(name)
    if ours != start and (start is None or descends(start, theirs)):
        return Move.REPLACE
    return Move.REWRITTEN
