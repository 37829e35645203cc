"""Tests which Git directories are followed, and that git works where it may and no more."""

import subprocess
from pathlib import Path

import pytest

from claude_proxy.sandbox.git_directories import git_of, worktree_of
from tests.sandbox.boxes import Box, started


def git(*words: str | Path, at: Path) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    command = ("git", "-C", at, *identity, "-c", "protocol.file.allow=always", *words)
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit."""
    directory = tmp_path / "main"
    directory.mkdir()
    git("init", "-q", at=directory)
    git("commit", "-q", "--allow-empty", "-m", "one", at=directory)
    return directory


def test_a_worktree_of_a_repository_is_known_by_both_sides(
    repository: Path, tmp_path: Path
) -> None:
    git("worktree", "add", "-q", tmp_path / "tree", at=repository)

    found = worktree_of(tmp_path / "tree")

    assert found is not None
    assert found.common == repository / ".git"
    assert found.git == repository / ".git/worktrees/tree"


def test_a_submodule_is_known_by_both_sides(repository: Path, tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir()
    git("init", "-q", at=above)
    git("submodule", "add", "-q", repository, "sub", at=above)

    found = worktree_of(above / "sub")

    assert found is not None
    assert found.git == found.common == above / ".git/modules/sub"
    assert git_of(above)[1] == (above / ".git", above / ".git/modules/sub")


def test_a_file_that_names_a_repository_of_somebody_else_shows_nothing(
    repository: Path, project: Path
) -> None:
    (project / ".git").write_text(f"gitdir: {repository}/.git\n")

    assert worktree_of(project) is None


@pytest.mark.parametrize(
    "text", ["", "gitdir: ", "gitdir: ../none", "gitdir: /", "x", "gitdir: \0"]
)
def test_a_file_that_names_no_repository_shows_nothing(text: str, project: Path) -> None:
    (project / ".git").write_text(text)

    assert worktree_of(project) is None


def test_a_worktree_whose_common_directory_is_elsewhere_shows_nothing(
    tmp_path: Path, project: Path
) -> None:
    """An agent of another project made both sides agree, and would have `commondir` followed."""
    made = tmp_path / "made"
    made.mkdir()
    (made / "HEAD").touch()
    (made / "gitdir").write_text(f"{project}/.git\n")
    (made / "commondir").write_text("/\n")
    (project / ".git").write_text(f"gitdir: {made}\n")

    assert worktree_of(project) is None


def test_git_works_in_a_worktree_and_cannot_change_what_is_obeyed_outside(
    box: Box, repository: Path
) -> None:
    box.project.rmdir()
    git("worktree", "add", "-q", box.project, at=repository)

    done = box.sh(
        "echo x > file; git add file;"
        "git -c user.name=a -c user.email=a@example.com commit -qm two;"
        f"git log --format=%s; echo bad > {repository}/.git/config;"
        f"echo bad > {repository}/.git/hooks/pre-commit; echo bad > .git; mv {repository}/.git x"
    )

    assert done.out == "two\none\n", done.err
    assert "bad" not in (repository / ".git/config").read_text()
    assert not (repository / ".git/hooks/pre-commit").exists()
    assert "bad" not in (box.project / ".git").read_text()


def test_hooks_that_lie_elsewhere_are_guarded_where_they_lie(box: Box) -> None:
    git("init", "-q", at=box.project)
    git("config", "core.hooksPath", "tools/hooks", at=box.project)
    (box.project / "tools/hooks").mkdir(parents=True)

    done = box.sh("echo bad > tools/hooks/pre-commit; mv tools/hooks tools/h; mv tools t")

    assert done.code != 0
    assert list((box.project / "tools/hooks").iterdir()) == []


def test_a_dot_git_that_cannot_be_followed_is_told(box: Box) -> None:
    (box.project / ".git").symlink_to(box.home / "other")

    planned = box.plan(box.spec("/bin/true"))

    assert "symbolic link" in planned.notes[0]
    assert started(planned).code == 0
