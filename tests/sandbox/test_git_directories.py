"""Git directories are followed only if they name the project, and git works in a sandbox."""

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


def test_a_worktree_is_followed_if_both_sides_name_each_other(
    repository: Path, tmp_path: Path
) -> None:
    git("worktree", "add", "-q", tmp_path / "tree", at=repository)

    found = worktree_of(tmp_path / "tree")

    assert found is not None
    assert found.common == repository / ".git"
    assert found.git == repository / ".git/worktrees/tree"


def test_a_submodule_is_followed_if_both_sides_name_each_other(
    repository: Path, tmp_path: Path
) -> None:
    above = tmp_path / "above"
    above.mkdir()
    git("init", "-q", at=above)
    git("submodule", "add", "-q", repository, "sub", at=above)

    found = worktree_of(above / "sub")

    assert found is not None
    assert found.git == found.common == above / ".git/modules/sub"
    assert git_of(above)[1] == (above / ".git", above / ".git/modules/sub")


def test_a_file_that_names_another_projects_repository_shows_nothing(
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


def test_git_works_in_a_worktree_and_cannot_change_its_settings(box: Box, repository: Path) -> None:
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


def test_hooks_in_another_directory_are_read_only_there(box: Box) -> None:
    git("init", "-q", at=box.project)
    git("config", "core.hooksPath", "tools/hooks", at=box.project)
    (box.project / "tools/hooks").mkdir(parents=True)

    done = box.sh("echo bad > tools/hooks/pre-commit; mv tools/hooks tools/h; mv tools t")

    assert done.code != 0
    assert list((box.project / "tools/hooks").iterdir()) == []


def test_a_dot_git_that_cannot_be_followed_is_reported(box: Box) -> None:
    (box.project / ".git").symlink_to(box.home / "other")

    planned = box.plan(box.spec("/bin/true"))

    assert "symbolic link" in planned.notes[0]
    assert started(planned).code == 0


# --- a link, or a file, that leads to a Git directory elsewhere


@pytest.fixture
def elsewhere(repository: Path, tmp_path: Path) -> Path:
    """A Git directory that names no project."""
    return (repository / ".git").rename(tmp_path / "elsewhere.git")


def test_a_link_to_a_git_directory_in_the_project_is_followed(
    elsewhere: Path, project: Path
) -> None:
    inside = elsewhere.rename(project / "gitdir")
    (project / ".git").symlink_to("gitdir")

    assert git_of(project) == (None, (inside,), ())


def test_a_link_out_of_the_project_is_not_followed_and_the_advice_says_what_to_allow(
    elsewhere: Path, project: Path
) -> None:
    (project / ".git").symlink_to("../elsewhere.git")

    worktree, directories, [note] = git_of(project)

    assert (worktree, directories) == (None, ())
    assert f"a symbolic link to {elsewhere}" in note
    assert note.endswith(f"--allow-rw {elsewhere}")


def test_a_link_to_a_git_directory_that_names_the_project_is_followed(
    elsewhere: Path, project: Path
) -> None:
    git("--git-dir", elsewhere, "config", "core.worktree", project, at=project)
    (project / ".git").symlink_to(elsewhere)

    worktree, directories, notes = git_of(project)

    assert worktree is not None
    assert (worktree.git, directories, notes) == (elsewhere, (elsewhere,), ())


@pytest.mark.parametrize("link", [True, False], ids=["a link", "a file"])
def test_a_git_directory_that_the_user_shows_is_protected_as_the_projects_own(
    elsewhere: Path, project: Path, *, link: bool
) -> None:
    if link:
        (project / ".git").symlink_to(elsewhere)
    else:
        (project / ".git").write_text(f"gitdir: {elsewhere}\n")

    assert git_of(project, [elsewhere.parent]) == (None, (elsewhere,), ())


def test_the_advice_for_a_worktree_names_the_directory_that_holds_it_all(
    repository: Path, tmp_path: Path
) -> None:
    git("worktree", "add", "-q", tmp_path / "tree", at=repository)
    moved = (tmp_path / "tree").rename(tmp_path / "moved")

    *_, [note] = git_of(moved)

    assert note.endswith(f"--allow-rw {repository / '.git'}")
    common = repository / ".git"
    assert git_of(moved, [common])[1] == (common / "worktrees/tree", common)


def test_a_link_that_leads_nowhere_is_called_that(project: Path) -> None:
    (project / ".git").symlink_to("/nonexistent")

    assert "leads nowhere" in git_of(project)[2][0]


def test_a_project_in_a_repository_is_told_how_to_show_it_all(repository: Path) -> None:
    (repository / "part").mkdir()

    assert git_of(repository / "part")[2][0].endswith(f"--dir {repository}")


def test_git_works_through_a_link_and_its_hooks_and_settings_are_read_only(
    box: Box, elsewhere: Path
) -> None:
    (box.project / ".git").symlink_to(elsewhere)
    script = (
        "git -c user.name=a -c user.email=a@example.com commit -q --allow-empty -m two; "
        "git log --format=%s; touch .git/hooks/x || echo hooks; git config a.b c || echo settings"
    )

    done = box.run("sh", "-c", script, allow_rw=(elsewhere,))

    assert done.out.split() == ["two", "one", "hooks", "settings"], done.err
