"""The checked-out branch, the index and HEAD move together, or nothing does."""

import shutil
from pathlib import Path

import pytest

from claude_proxy.sandbox.git import host_head
from claude_proxy.sandbox.git.host_git import HostGit
from claude_proxy.sandbox.git.host_head import Head, head_of, switch
from tests.sandbox.git.repositories import commit, git, repository


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with a commit `two` on the branch `next`, and `main` checked out."""
    tree = repository(tmp_path / "tree")
    git("checkout", "-q", "-b", "next", at=tree)
    commit(tree, "two")
    git("checkout", "-q", "main", at=tree)
    (tree / "two").write_text("two\n")
    return tree


def target_of(tree: Path, name: str) -> Head:
    return Head(name, git("rev-parse", "next", at=tree))


@pytest.mark.parametrize("name", ["refs/heads/main", "refs/heads/next"])
def test_the_index_follows(tree: Path, name: str) -> None:
    host = HostGit(tree / ".git")

    assert switch(host, head_of(host), target_of(tree, name), "m") == ""

    assert head_of(host) == target_of(tree, name)
    assert git("status", "--porcelain", at=tree) == ""
    assert not (tree / ".git/index.lock").exists()


def test_a_detached_head_follows(tree: Path) -> None:
    host, commit_ = HostGit(tree / ".git"), git("rev-parse", "next", at=tree)

    assert switch(host, head_of(host), Head(commit_, commit_), "m") == ""

    assert head_of(host) == Head(commit_, commit_)


def test_a_branch_that_was_moved_at_the_same_moment_stays(tree: Path) -> None:
    host = HostGit(tree / ".git")
    before = head_of(host)
    other = commit(tree, "three")

    assert switch(host, before, target_of(tree, "refs/heads/main"), "m") != ""

    assert head_of(host).object == other
    assert not (tree / ".git/index.lock").exists()


def test_an_index_that_changes_all_the_time_is_left_alone(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tree / ".git/index"

    def changing(*_: object) -> bool:
        shutil.copy(real, real.with_name("new"))
        real.with_name("new").replace(real)
        return True

    monkeypatch.setattr(host_head, "_read_trees", changing)
    host = HostGit(tree / ".git")
    before = head_of(host)

    assert switch(host, before, target_of(tree, "refs/heads/main"), "m") == host_head.CHANGED
    assert head_of(host) == before


def test_a_bare_repository_has_no_index(tree: Path, tmp_path: Path) -> None:
    git("clone", "-q", "--bare", tree, tmp_path / "bare", at=tmp_path)
    host = HostGit(tmp_path / "bare")

    assert switch(host, head_of(host), target_of(tree, "refs/heads/main"), "m") == ""
    assert not (tmp_path / "bare/index").exists()
    assert host_head.is_bare(host)


def test_a_worktree_of_a_bare_repository_has_files(tree: Path, tmp_path: Path) -> None:
    git("clone", "-q", "--bare", tree, tmp_path / "bare", at=tmp_path)
    git("worktree", "add", "-q", tmp_path / "w", "main", at=tmp_path / "bare")

    assert not host_head.is_bare(HostGit(tmp_path / "bare/worktrees/w"))
