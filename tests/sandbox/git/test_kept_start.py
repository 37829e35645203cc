"""The commit that a run began with stays readable while the run lasts, and no trace is left."""

from pathlib import Path

import pytest

from claude_proxy.sandbox.git import kept_start, private_directory
from claude_proxy.sandbox.git.discovery import discover
from tests.sandbox.git.repositories import git, repository


@pytest.mark.parametrize("packed", [False, True])
def test_a_start_that_the_host_drops_is_not_collected(tmp_path: Path, packed: bool) -> None:  # noqa: FBT001 - a case
    tree = repository(tmp_path / "tree")
    start = git("rev-parse", "HEAD", at=tree)
    one = discover(tree, None, [], tmp_path / "place").directories[0]
    private_directory.make(one)

    kept_start.add(one, "r~2")
    git("commit", "-q", "--amend", "-m", "other", at=tree)
    git("reflog", "expire", "--expire=now", "--all", at=tree)
    git("gc", "-q", "--prune=now", at=tree)
    assert git("cat-file", "-t", start, at=tree) == "commit"
    if packed:
        git("pack-refs", "--all", at=tree)
    kept_start.remove(one.host, "r~2")

    assert git("for-each-ref", "--format=%(refname)", at=tree) == "refs/heads/main"


def test_a_repository_without_a_commit_needs_none(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    git("init", "-q", at=tree)
    one = discover(tree, None, [], tmp_path / "place").directories[0]
    private_directory.make(one)

    kept_start.add(one, "r")
    kept_start.remove(one.host, "r")

    assert not (one.host / "refs/claude-proxy").exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree")
    one = discover(tree, None, [], tmp_path / "place").directories[0]
    private_directory.make(one)
    (tree / ".git/refs").rename(tmp_path / "elsewhere")
    (tree / ".git/refs").symlink_to(tmp_path / "elsewhere")

    kept_start.add(one, "r")
    kept_start.remove(one.host, "r")

    assert not (tmp_path / "elsewhere/claude-proxy").exists()
