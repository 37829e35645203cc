"""A submodule that a run initializes works outside afterwards, with settings of the host's."""

import shutil
from pathlib import Path

import pytest

from claude_proxy.sandbox.git import private_directory
from claude_proxy.sandbox.git.discovery import discover
from claude_proxy.sandbox.git.new_modules import add_new_modules
from claude_proxy.sandbox.plan.git_facts import GitDirectory
from tests.sandbox.git.repositories import git, repository


@pytest.fixture
def initialized(tmp_path: Path) -> tuple[Path, GitDirectory]:
    """A project and its private directory, in which a run has initialized `sub`."""
    above = repository(tmp_path / "above")
    git("submodule", "add", "-q", repository(tmp_path / "other"), "sub", at=above)
    git("commit", "-q", "-m", "sub", at=above)
    tree = tmp_path / "tree"
    git("clone", "-q", above, tree, at=tmp_path)
    directory = discover(tree, None, [], tmp_path / "place").directories[0]
    private_directory.make(directory)
    git("submodule", "update", "-q", "--init", at=tree)
    (directory.private / "modules").mkdir()
    shutil.move(tree / ".git/modules/sub", directory.private / "modules/sub")
    (tree / ".git/modules").rmdir()
    (directory.private / "modules/sub/config").write_text("[core]\n\tfsmonitor = evil\n")
    return tree, directory


def test_it_works_and_nothing_of_the_run_is_obeyed(
    initialized: tuple[Path, GitDirectory],
) -> None:
    tree, directory = initialized

    assert add_new_modules(directory, tree, "r") == []

    assert git("status", "--porcelain", at=tree) == ""
    assert git("log", "--format=%s", at=tree / "sub") == "one"
    assert not git("submodule", "status", at=tree).startswith(("-", "+"))
    assert "evil" not in (tree / ".git/modules/sub/config").read_text()


@pytest.mark.parametrize("text", ["../.git", "../.git/modules/../x", "/etc", "../.git/modules"])
def test_a_file_that_names_no_module_creates_nothing(
    initialized: tuple[Path, GitDirectory], text: str
) -> None:
    tree, directory = initialized
    (tree / "sub/.git").write_text(f"gitdir: {text}\n")

    assert add_new_modules(directory, tree, "r") == []

    assert not (tree / ".git/modules").exists()
    assert not (tree / ".git/x").exists()


def test_a_module_that_does_not_come_over_is_a_problem(
    initialized: tuple[Path, GitDirectory],
) -> None:
    tree, directory = initialized
    shutil.rmtree(directory.private / "modules/sub/objects")

    assert len(add_new_modules(directory, tree, "r")) == 1
    assert not (tree / ".git/modules/sub").exists()
