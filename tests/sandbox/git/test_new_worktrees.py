"""A worktree that a run adds in the project is one of the host's repository afterwards."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from claude_proxy.sandbox.git import private_directory
from claude_proxy.sandbox.git.discovery import discover
from claude_proxy.sandbox.git.new_worktrees import add_new_worktrees
from claude_proxy.sandbox.plan.git_facts import GitDirectory
from tests.sandbox.git.repositories import git, repository
from tests.sandbox.git.runs import GitBox


@dataclass
class Added:
    """A worktree `w` on a branch of the same name, as a run leaves it."""

    tree: Path
    directory: GitDirectory

    @property
    def admin(self) -> Path:
        return self.directory.private / "worktrees/w"

    def known(self) -> list[str]:
        assert add_new_worktrees(self.directory, self.tree) == []
        lines = git("worktree", "list", "--porcelain", at=self.tree).split("\n")
        return [line for line in lines if line.startswith("worktree ")][1:]


@pytest.fixture
def added(tmp_path: Path) -> Added:
    tree = repository(tmp_path / "tree")
    directory = discover(tree, None, [], tmp_path / "place").directories[0]
    private_directory.make(directory)
    git("branch", "w", at=tree)
    admin = directory.private / "worktrees/w"
    admin.mkdir(parents=True)
    (tree / "w").mkdir()
    (tree / "w/.git").write_text(f"gitdir: {tree}/.git/worktrees/w\n")
    (tree / "w/one").write_text("one\n")
    (admin / "gitdir").write_text(f"{tree}/w/.git\n")
    (admin / "HEAD").write_text("ref: refs/heads/w\n")
    (admin / "commondir").write_text("/evil\n")
    return Added(tree, directory)


def test_it_works_and_nothing_of_the_run_is_obeyed(added: Added) -> None:
    assert added.known() == [f"worktree {added.tree}/w"]
    assert git("status", "--porcelain", "--branch", at=added.tree / "w") == "## w"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("gitdir", "/etc/.git"),
        ("gitdir", "../../../w/.git"),
        ("HEAD", "ref: ../../config"),
        ("HEAD", "ref: refs/heads/../../x"),
        ("HEAD", ""),
        ("HEAD", "ref: refs/heads/main"),  # checked out already
    ],
)
def test_what_is_no_worktree_in_the_project_is_left_out(added: Added, file: str, text: str) -> None:
    (added.admin / file).write_text(f"{text}\n")

    assert added.known() == []


def test_files_that_name_something_else_or_are_behind_a_link_are_left_out(
    added: Added, tmp_path: Path
) -> None:
    (added.tree / "w").rename(tmp_path / "w")
    (added.tree / "w").symlink_to(tmp_path / "w")
    assert added.known() == []

    (added.tree / "w").unlink()
    (tmp_path / "w").rename(added.tree / "w")
    (added.tree / "w/.git").write_text("gitdir: /elsewhere\n")
    assert added.known() == []


def test_a_commit_that_did_not_come_over_is_a_problem(added: Added) -> None:
    (added.admin / "HEAD").write_text(f"{'a' * 40}\n")

    assert len(add_new_worktrees(added.directory, added.tree)) == 1
    assert not (added.tree / ".git/worktrees").exists()


def test_a_worktree_of_a_run_goes_on_in_the_next_one(git_box: GitBox) -> None:
    git_box.sh(
        "git worktree add -q -b side .w/side; cd .w/side; echo x > x; git add x; git commit -qm two"
    )
    assert git("status", "--porcelain", "--branch", at=git_box.tree / ".w/side") == "## side"

    git_box.sh("cd .w/side; git commit -q --allow-empty -m three")

    assert git("log", "--format=%s", at=git_box.tree / ".w/side") == "three\ntwo\none"
    assert git("status", "--porcelain", at=git_box.tree / ".w/side") == ""
