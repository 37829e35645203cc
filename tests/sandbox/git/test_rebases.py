"""A branch under a rebase is found wherever the rebase goes on, and not moved under it."""

import subprocess
from pathlib import Path

import pytest

from claude_proxy.sandbox.git import rebases
from tests.sandbox.git.cloned import cloned
from tests.sandbox.git.repositories import git, repository


def begin_rebase(project: Path, *options: str) -> None:
    """Begin a rebase of the checked-out branch that stops at a conflict."""
    git("branch", "up", at=project)
    (project / "one").write_text("mine")
    git("commit", "-qam", "mine", at=project)
    git("checkout", "-q", "-b", "theirs", "up", at=project)
    (project / "one").write_text("theirs")
    git("commit", "-qam", "theirs", at=project)
    git("checkout", "-q", "-", at=project)
    with pytest.raises(subprocess.CalledProcessError):
        git("rebase", *options, "theirs", at=project)


@pytest.mark.parametrize("option", ["--merge", "--apply"])
def test_a_branch_under_a_rebase_is_found_until_it_ends(tmp_path: Path, option: str) -> None:
    project = repository(tmp_path / "project")
    begin_rebase(project, option)

    during = rebases.branches_in(project / ".git")
    git("rebase", "--abort", at=project)

    assert during == {"refs/heads/main"}
    assert rebases.branches_in(project / ".git") == frozenset()


def test_a_rebase_in_another_worktree_is_found(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    git("worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"), at=project)
    begin_rebase(tmp_path / "linked")

    assert rebases.branches_in(project / ".git") == {"refs/heads/linked"}


def test_a_branch_does_not_move_under_a_rebase_and_is_taken_after_it(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    begin_rebase(project)
    made = cloned(tmp_path, "main")
    at = made.commit("two")

    during = made.take()
    git("rebase", "--abort", at=project)

    assert [ref.problem for ref in during.brought.refs] == ["a rebase of it has not ended"]
    assert made.take().complete
    assert made.outside("rev-parse", "main") == at
