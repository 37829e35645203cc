"""What happened to each ref is said in words, with the command that takes what waits."""

from pathlib import Path

import pytest

from claude_proxy.sandbox.git.bring_over import BroughtOver, BroughtRef
from claude_proxy.sandbox.git.ref_moves import Move
from claude_proxy.sandbox.git.report import lines_of

A, KEPT = "a" * 40, "refs/claude-proxy/r/x"
HOST, PLACE = Path("/p/.git"), Path("/state/0")


def said(*refs: BroughtRef, **more: object) -> str:
    return "\n".join(lines_of(BroughtOver(refs, **more), HOST, PLACE))  # type: ignore[arg-type]


def ref(move: Move, name: str = "refs/heads/x", **more: str) -> BroughtRef:
    return BroughtRef(name, A, more.pop("kept_as", KEPT), move, **more)


def test_what_moved_is_said_in_one_line() -> None:
    done = said(ref(Move.FORWARD), ref(Move.CREATE), ref(Move.CREATE, "refs/tags/v"))

    assert done == (
        "note: brought over into /p: x (aaaaaaaaaa), new branch x (aaaaaaaaaa), tag v (aaaaaaaaaa)"
    )


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (ref(Move.DIVERGED), f"git -C /p stash -u && git -C /p merge {KEPT}"),
        (ref(Move.REWRITTEN), f"git -C /p reset {KEPT}"),
        (ref(Move.DELETED), "was deleted in /p"),
        (ref(Move.DIVERGED, "refs/tags/x"), "the tag x is another one"),
        (ref(Move.FORWARD, problem="it is checked out"), f"git -C /p merge {KEPT}"),
        (ref(Move.KEPT, "refs/stash"), f"kept in /p: {KEPT}"),
    ],
)
def test_what_waits_is_said_with_its_command(one: BroughtRef, expected: str) -> None:
    assert expected in said(one)


def test_what_was_not_brought_over_is_said_with_its_place() -> None:
    done = said(ref(Move.KEPT, kept_as="", problem="damaged"), problems=("too large",))

    assert "warning: x was not brought over into /p: damaged" in done
    assert "too large" in done
    assert "/state/0" in done


def test_head_is_said_if_it_followed_or_did_not() -> None:
    assert "now on x" in said(head="refs/heads/x")
    assert f"now on {A[:10]}" in said(head=A)
    assert "stays where it was: other" in said(head_problem="other")


def test_many_refs_are_cut_and_control_characters_are_not_printed() -> None:
    many = said(*(ref(Move.CREATE, f"refs/heads/x{number}") for number in range(30)))
    strange = said(ref(Move.FORWARD, "refs/heads/a\x9bb"))

    assert "and 20 more" in many
    assert "\x9b" not in strange
    assert said(ref(Move.SAME)) == ""


def test_of_kept_stashes_the_newest_has_the_command_that_applies_it() -> None:
    stash = ref(Move.KEPT, "refs/stash", kept_as="refs/claude-proxy/r@stash")
    older = ref(Move.KEPT, "refs/stash@1", kept_as="refs/claude-proxy/r@stash@1")

    assert said(stash).endswith(
        "; to apply the stash: git -C /p stash apply refs/claude-proxy/r@stash"
    )
    assert said(older, stash).endswith(
        "; to apply the newest stash: git -C /p stash apply refs/claude-proxy/r@stash"
    )
    assert "apply" not in said(ref(Move.KEPT, "refs/notes/commits"))
