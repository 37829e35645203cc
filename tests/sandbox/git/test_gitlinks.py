"""Submodules that a run has committed are named, and those from before are not."""

import subprocess
from pathlib import Path

import pytest

from claude_proxy.sandbox.git.bring_over import BroughtOver, BroughtRef
from claude_proxy.sandbox.git.gitlinks import lines_of_gitlinks
from claude_proxy.sandbox.git.ref_moves import Known

MAIN = "refs/heads/main"
OTHER = "1" * 40


class Repository:
    """A repository whose commits hold what a test asks for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.git("init", "-q", "--bare", "-b", "main", str(path))

    def git(self, *words: str, stdin: str = "") -> str:
        where = [] if words[0] == "init" else ["--git-dir", str(self.path)]
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", *where, *identity, *words],
            input=stdin,
            text=True,
            capture_output=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, *gitlinks: str) -> str:
        rows = [f"160000 commit {OTHER}\t{name}" for name in gitlinks]
        blob = self.git("hash-object", "-w", "--stdin", stdin="text")
        tree = self.git("mktree", stdin="\n".join([f"100644 blob {blob}\tfile", *rows]) + "\n")
        return self.git("commit-tree", "-m", "x", tree)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "host.git")


def lines(repository: Repository, new: str, known: Known) -> list[str]:
    done = BroughtOver((BroughtRef(MAIN, new, "refs/claude-proxy/r/main"),), known)
    return list(lines_of_gitlinks(done, repository.path))


def test_a_gitlink_that_a_run_commits_is_named(repository: Repository) -> None:
    old, new = repository.commit("old"), repository.commit("old", "sub")

    (line,) = lines(repository, new, Known(MAIN, {MAIN: old}))

    assert "committed submodules (gitlinks) on main: sub; " in line


def test_gitlinks_from_before_are_not_named(repository: Repository) -> None:
    old = repository.commit("old")

    assert lines(repository, old, Known(MAIN, {MAIN: old})) == []


def test_a_new_branch_is_compared_with_where_the_run_began(repository: Repository) -> None:
    old, new = repository.commit("old"), repository.commit("old", "sub")
    known = Known("refs/heads/begun", {"refs/heads/begun": old})

    assert len(lines(repository, new, known)) == 1
    assert lines(repository, old, known) == []


def test_in_a_repository_without_commits_every_gitlink_is_new(repository: Repository) -> None:
    (line,) = lines(repository, repository.commit(*"abcdefg"), Known())

    assert ": a, b, c, d, e and 2 more; " in line


def test_what_was_brought_over_while_the_run_went_on_counts(repository: Repository) -> None:
    old, new = repository.commit("old"), repository.commit("sub")
    done = BroughtOver((), Known(MAIN, {MAIN: old}, {MAIN: new}))

    assert len(list(lines_of_gitlinks(done, repository.path))) == 1
