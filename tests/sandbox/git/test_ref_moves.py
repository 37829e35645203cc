"""Of the host's refs only those move that nobody else has moved, and that lose nothing."""

import pytest

from claude_proxy.sandbox.git.ref_moves import Known, Move, move_of

MAIN = "refs/heads/main"
PARENTS = {"b": "a", "c": "b", "x": "a", "y": "b"}  # a - b - c, a - x, b - y


def descends(old: str, new: str) -> bool:
    while new != old and new in PARENTS:
        new = PARENTS[new]
    return new == old


def moved(ours: str | None, theirs: str, start: str | None, last: str | None) -> Move:
    known = Known("", {MAIN: start} if start else {}, {MAIN: last} if last else {})
    return move_of(MAIN, ours, theirs, known, descends)


@pytest.mark.parametrize(
    ("ours", "theirs", "start", "last", "expected"),
    [
        ("a", "a", "a", "a", Move.SAME),
        ("a", "b", "a", "a", Move.FORWARD),
        ("b", "c", "a", "a", Move.FORWARD),  # moved outside, but the run has it
        ("x", "b", "a", "a", Move.DIVERGED),
        ("c", "b", "a", "a", Move.CONTAINED),
        ("b", "x", "a", "b", Move.REPLACE),  # b is the run's own
        ("b", "x", "b", "b", Move.REWRITTEN),  # b is the host's
        ("c", "y", "a", "b", Move.DIVERGED),  # moved outside after it was brought over
        ("b", "x", None, "b", Move.REPLACE),
        (None, "b", None, None, Move.CREATE),
        (None, "b", "a", "a", Move.DELETED),
    ],
)
def test_a_branch_moves_only_where_nothing_is_lost(
    ours: str | None, theirs: str, start: str | None, last: str | None, expected: Move
) -> None:
    assert moved(ours, theirs, start, last) is expected


def test_a_tag_never_moves() -> None:
    assert move_of("refs/tags/v", "a", "b", Known(), descends) is Move.DIVERGED


def test_notes_and_stashes_are_only_kept() -> None:
    assert move_of("refs/stash", None, "b", Known(), descends) is Move.KEPT
