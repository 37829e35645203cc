"""Refs are read as git writes them, and nothing that is none counts as one."""

from pathlib import Path

import pytest

from claude_proxy.sandbox.git.ref_files import Refs, has_head, is_untouched, read_refs

A, B = "a" * 40, "b" * 40


def git_directory(at: Path, files: dict[str, str]) -> Path:
    for name, text in {"HEAD": "ref: refs/heads/main\n", **files}.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text(text)
    return at


def test_loose_refs_have_precedence_over_packed_ones(tmp_path: Path) -> None:
    packed = f"# pack-refs with: peeled\n{A} refs/heads/main\n{A} refs/tags/v\n^{B}\n"
    at = git_directory(tmp_path, {"packed-refs": packed, "refs/heads/main": f"{B}\n"})

    assert read_refs(at) == Refs("refs/heads/main", {"refs/heads/main": B, "refs/tags/v": A})
    assert read_refs(at).head_object == B


def test_a_symbolic_ref_leads_to_its_object_and_a_circle_nowhere(tmp_path: Path) -> None:
    at = git_directory(
        tmp_path,
        {
            "refs/heads/main": A,
            "refs/heads/link": "ref: refs/heads/main\n",
            "refs/heads/circle": "ref: refs/heads/circle\n",
            "refs/heads/out": "ref: ../../../etc/passwd\n",
        },
    )

    found = read_refs(at)

    assert found.refs == {"refs/heads/main": A, "refs/heads/link": A}
    assert len(found.problems) == 2


def test_what_is_no_ref_is_left_out_and_named(tmp_path: Path) -> None:
    at = git_directory(tmp_path, {"refs/heads/bad": "text\n", "refs/heads/x.lock": A})

    found = read_refs(at)

    assert found.refs == {}
    assert found.problems == ("'refs/heads/bad' is not a ref",)


def test_other_refs_are_not_brought(tmp_path: Path) -> None:
    names = ("refs/remotes/origin/main", "refs/replace/x", "refs/claude-proxy/r/main")
    at = git_directory(tmp_path, dict.fromkeys(names, A))
    (at / "packed-refs").write_text("".join(f"{A} {name}\n" for name in names))

    assert read_refs(at).refs == {}


def test_the_head_and_the_operation_of_a_worktree_are_its_own(tmp_path: Path) -> None:
    at = git_directory(
        tmp_path, {"worktrees/w/HEAD": f"{A}\n", "worktrees/w/MERGE_HEAD": B, "refs/heads/x": A}
    )

    found = read_refs(at, "worktrees/w")

    assert (found.head, found.operation, found.head_object) == (A, "MERGE_HEAD", A)
    assert read_refs(at).operation == ""


def test_older_stashes_have_names_of_their_own(tmp_path: Path) -> None:
    log = f"{'0' * 40} {A} a <a@x> 1 +0000\tone\n{A} {B} a <a@x> 1 +0000\ttwo\n"
    at = git_directory(tmp_path, {"refs/stash": B, "logs/refs/stash": log})

    assert read_refs(at).refs == {"refs/stash": B, "refs/stash@1": A}


def test_a_removed_worktree_has_no_head(tmp_path: Path) -> None:
    at = git_directory(tmp_path, {"worktrees/w/HEAD": f"{A}\n"})

    assert has_head(at, "worktrees/w")
    assert not has_head(at, "worktrees/x")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("config", "changed", True),
        ("HEAD", A, False),
        ("packed-refs", f"{B} refs/heads/main\n", False),
        ("refs/heads/a/b", A, False),
        ("refs/tags/v", A, False),
        ("refs/stash", A, False),
        ("refs/remotes/origin/main", A, True),
    ],
)
def test_refs_that_a_run_has_written_are_noticed(
    tmp_path: Path,
    name: str,
    text: str,
    expected: bool,  # noqa: FBT001 - a case
) -> None:
    packed = {"packed-refs": f"{A} refs/heads/main\n", "refs/heads/../x": ""}
    start = git_directory(tmp_path / "start", packed)
    private = git_directory(tmp_path / "private", packed)
    assert is_untouched(private, start)

    git_directory(private, {name: text})

    assert is_untouched(private, start) is expected
