"""Every Git directory that a run could write is found, in every layout."""

from pathlib import Path

import pytest

from claude_proxy.sandbox.git.discovery import discover, is_bare
from claude_proxy.sandbox.git_directories import git_of
from claude_proxy.sandbox.plan.git_facts import GitMounts
from tests.sandbox.git.repositories import git, repository


def found_in(project: Path, *allowed: Path) -> GitMounts:
    worktree, trusted, _ = git_of(project, allowed)
    return discover(project, worktree, trusted, Path("/state/repositories/r"))


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return repository(tmp_path / "main")


def test_a_directory_is_found_with_its_objects(main: Path) -> None:
    found = found_in(main)

    one = found.directories[0]
    assert (one.host, one.worktrees, one.within) == (main / ".git", ("",), False)
    assert [store.path for store in found.stores] == [main / ".git/objects"]
    assert one.private.parent == one.start.parent == Path("/state/repositories/r")


def test_a_project_without_a_repository_has_none(project: Path) -> None:
    assert found_in(project) == GitMounts()


def test_a_linked_worktree_has_the_whole_repository(main: Path, tmp_path: Path) -> None:
    git("worktree", "add", "-q", tmp_path / "w", at=main)

    found = found_in(tmp_path / "w")

    assert [(one.host, one.worktrees) for one in found.directories] == [
        (main / ".git", ("worktrees/w",))
    ]
    assert found.files == (tmp_path / "w/.git",)


def test_a_worktree_within_the_project_belongs_to_its_repository(main: Path) -> None:
    git("worktree", "add", "-q", main / "w", at=main)

    found = found_in(main)

    assert [one.worktrees for one in found.directories] == [("", "worktrees/w")]
    assert found.files == (main / "w/.git",)


def test_submodules_are_parts_of_it(main: Path, tmp_path: Path) -> None:
    above = repository(tmp_path / "above")
    git("submodule", "add", "-q", main, "sub", at=above)

    found = found_in(above)

    assert [(one.host, one.within) for one in found.directories] == [
        (above / ".git", False),
        (above / ".git/modules/sub", True),
    ]
    assert found.directories[1].start.name == "sub"
    assert found.files == (above / "sub/.git",)
    assert [one.host for one in found_in(above / "sub").directories] == [above / ".git/modules/sub"]


def test_a_link_is_found_wherever_it_leads(main: Path, project: Path) -> None:
    (main / ".git").rename(main / "real")
    (main / ".git").symlink_to("real")
    (project / ".git").symlink_to(main)

    assert found_in(main).links == ((main / ".git", main / "real"),)
    assert [one.host for one in found_in(main).directories] == [main / "real"]
    assert found_in(project).links == ((project / ".git", main),)
    assert found_in(project).directories == ()


def test_a_file_leads_to_a_directory_in_the_project_or_one_that_is_allowed(
    main: Path, project: Path, tmp_path: Path
) -> None:
    (main / ".git").rename(main / "real")
    (main / ".git").write_text("gitdir: ./real\n")
    elsewhere = tmp_path / "elsewhere"
    git("init", "-q", "--separate-git-dir", elsewhere, at=project)

    assert [one.host for one in found_in(main).directories] == [main / "real"]
    assert found_in(project).directories == ()
    assert [one.host for one in found_in(project, elsewhere).directories] == [elsewhere]


def test_a_worktree_of_a_bare_repository_in_the_project_is_found(main: Path, project: Path) -> None:
    git("clone", "-q", "--bare", main, project / ".bare", at=project)
    (project / ".git").write_text("gitdir: ./.bare\n")
    git("worktree", "add", "-q", project / "w", "main", at=project)

    found = found_in(project)

    assert [(one.host, one.worktrees) for one in found.directories] == [
        (project / ".bare", ("", "worktrees/w"))
    ]
    assert set(found.files) == {project / ".git", project / "w/.git"}


def test_nested_and_bare_repositories_are_found(main: Path, tmp_path: Path) -> None:
    repository(main / "a/b")
    (main / "c").mkdir()
    (main / "c/.git").symlink_to("x")
    git("clone", "-q", "--bare", main, tmp_path / "bare", at=tmp_path)

    found = found_in(main)

    assert [one.host for one in found.directories] == [main / ".git", main / "a/b/.git"]
    assert found.links == ((main / "c/.git", main / "c/x"),)
    assert is_bare(tmp_path / "bare")
    assert [one.host for one in found_in(tmp_path / "bare").directories] == [tmp_path / "bare"]


def test_what_objects_are_borrowed_from_is_shown_without_its_own_alternates(
    main: Path, tmp_path: Path
) -> None:
    git("clone", "-q", "--shared", main, tmp_path / "second", at=tmp_path)
    git("clone", "-q", "--shared", tmp_path / "second", tmp_path / "third", at=tmp_path)
    (tmp_path / "third/.git/lfs").mkdir()

    found = found_in(tmp_path / "third")

    assert (found.stores[0].path, found.stores[0].has_alternates) == (
        tmp_path / "third/.git/objects",
        True,
    )
    assert {store.path for store in found.stores} >= {main / ".git/objects"}
    assert found.directories[0].stores == tuple(range(len(found.stores)))
    assert found.stores[0].lfs == tmp_path / "third/.git/lfs"
