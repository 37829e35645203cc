"""A branch moves with the worktree that has it checked out, and what was brought is remembered."""

import os
from pathlib import Path

from claude_proxy.sandbox.git import private_directory, record
from claude_proxy.sandbox.git.bring_run import bring
from claude_proxy.sandbox.git.discovery import discover
from claude_proxy.sandbox.git.record import Record
from tests.sandbox.git.repositories import commit, git, repository


def test_each_branch_moves_once_and_then_nothing_is_left(tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree")
    git("worktree", "add", "-q", tree / "w", at=tree)
    place = tmp_path / record.FOLDER / "r"
    found = discover(tree, None, [], place)
    run = Record("r", tree, place, found.directories)
    os.close(record.create(run))
    one = found.directories[0]
    private_directory.make(one)
    (one.private / "objects/info/alternates").write_text(f"{tree}/.git/objects\n")
    commit(tree, "two", directory=one.private)
    commit(tree / "w", "three", directory=one.private / "worktrees/w")

    first, second = bring(run, ended=False), bring(run, ended=True)

    assert {ref.name: ref.waits for ref in first[0][1].refs} == {
        "refs/heads/main": False,
        "refs/heads/w": False,
    }
    assert second[0][1].refs == ()
    assert git("status", "--porcelain", at=tree / "w") == ""


def test_a_directory_that_is_gone_is_a_problem(tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree")
    place = tmp_path / record.FOLDER / "r"
    run = Record("r", tree, place, discover(tree, None, [], place).directories)
    os.close(record.create(run))

    assert bring(run, ended=True)[0][1].problems


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree")
    place = tmp_path / record.FOLDER / "r"
    run = Record("r", tree, place, discover(tree, None, [], place).directories)
    os.close(record.create(run))
    one = run.directories[0]
    private_directory.make(one)
    (one.private / "objects/info/alternates").write_text(f"{tree}/.git/objects\n")
    new = commit(tree, "two", directory=one.private)
    (tree / ".git/objects").rename(tmp_path / "elsewhere")
    (tree / ".git/objects").symlink_to(tmp_path / "elsewhere")

    assert "symbolic link" in bring(run, ended=True)[0][1].problems[0]

    assert not (tmp_path / "elsewhere" / new[:2] / new[2:]).exists()
