"""A run with a clone shows nothing of the project, goes on where it was, and leaves no litter."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.config.allowlist.model import NetworkMode
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import run_clone
from claude_proxy.sandbox.bubblewrap.mount_sources import file_id
from claude_proxy.sandbox.git import clones
from claude_proxy.sandbox.plan.model import FileId, Profile, ProjectClone, SandboxSpec
from claude_proxy.sandbox.run_spec import RunSpec
from claude_proxy.sandbox.runner import run
from tests.conftest import FindProgram
from tests.sandbox.git.repositories import commit, git, repository

SHELL = Profile("shell")


class Place:
    """A user's project and state, and runs with a clone of it."""

    def __init__(self, directory: Path) -> None:
        self.project = repository(directory / "project")
        self.statedir = directory / "state"
        allowlist = directory / "allowlist.yaml"
        allowlist.write_text("allow: [allowed.test]\n", encoding="utf-8")
        self.settings = Settings(allowlist, directory / "conf", self.statedir)
        self.said: list[str] = []

    def spec(self, *command: str, branch: str | None = None) -> RunSpec:
        spec = SandboxSpec(command, self.project, SHELL, network=NetworkMode.NONE)
        return RunSpec(spec, self.settings, name="refactor", clone=True, branch=branch)

    def run(self, script: str) -> int:
        return run(self.spec("sh", "-c", script), say=self.said.append)

    def clone(self) -> clones.Clone:
        return clones.named(self.statedir, "refactor")


@pytest.fixture
def place(program: FindProgram, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A user with a project that is a repository."""
    program("bwrap")
    # Not pytest's own directory: its paths are too long for the name of a socket.
    with tempfile.TemporaryDirectory(prefix="clone-") as name:
        (Path(name) / "runtime").mkdir(mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(Path(name) / "runtime"))
        yield Place(Path(name))


COMMIT = "git -c user.name=a -c user.email=a@example.com commit -qm"


def test_command_works_in_a_clone_at_the_path_of_the_project(place: Place) -> None:
    (place.project / "mine").write_text("uncommitted")

    code = place.run(f"pwd >where; test ! -e mine && git add where && {COMMIT} where")

    assert code == 0
    assert (place.clone().tree / "where").read_text() == f"{place.project}\n"
    assert git("status", "--porcelain", at=place.project) == "?? mine"
    assert any("1 file of the project with uncommitted work" in line for line in place.said)
    assert "this run worked in the clone refactor: 1 commit and 0 files" in " ".join(place.said)


def test_a_clone_is_continued_by_its_name(place: Place) -> None:
    place.run("echo >left")
    commit(place.project, "later")

    assert place.run("test -e left && test ! -e later") == 0
    assert "note: going on in the clone refactor (branch main)" in place.said


def test_the_git_directory_of_a_clone_cannot_be_replaced_from_inside(place: Place) -> None:
    place.run("rm -rf .git; mv .git x; ln -s /etc .git; mv .git/HEAD .git/old")

    assert place.clone().git.is_dir()
    assert not place.clone().git.is_symlink()


def test_a_clone_of_a_run_that_does_not_start_is_removed(place: Place) -> None:
    spec = place.spec("true")
    broken = replace(spec, sandbox=replace(spec.sandbox, allow_ro=(place.project,)))

    with pytest.raises(ConfigError):
        run(broken, say=place.said.append)

    assert clones.all_in(place.statedir) == []


def test_a_clone_with_work_survives_a_start_that_fails(place: Place) -> None:
    place.run("echo >left")
    spec = place.spec("true")
    broken = replace(spec, sandbox=replace(spec.sandbox, allow_ro=(place.project,)))

    with pytest.raises(ConfigError):
        run(broken, say=place.said.append)

    assert (place.clone().tree / "left").exists()


def test_a_clone_is_held_while_the_run_goes_on(place: Place) -> None:
    with ExitStack() as held, ExitStack() as starting:
        spec = run_clone.prepare(place.spec("true"), "refactor", held, starting, place.said.append)
        starting.pop_all()

        assert clones.is_in_use(place.clone())
        assert spec.sandbox.clone == ProjectClone(place.clone().tree, place.clone().git)
        assert spec.sandbox.project_id == file_id(place.clone().tree)

    assert not clones.is_in_use(place.clone())


def test_a_project_that_was_replaced_is_not_cloned(place: Place) -> None:
    spec = place.spec("true")
    swapped = replace(spec, sandbox=replace(spec.sandbox, project_id=FileId(0, 0)))

    with ExitStack() as held, ExitStack() as starting, pytest.raises(ConfigError, match="replaced"):
        run_clone.prepare(swapped, "refactor", held, starting, place.said.append)

    assert clones.all_in(place.statedir) == []


def test_a_dry_run_names_the_clone_and_makes_none(place: Place) -> None:
    planned = run_clone.as_planned(place.spec("true")).sandbox.clone

    assert planned == ProjectClone(
        place.statedir / "clones/refactor/tree", place.statedir / "clones/refactor/git"
    )
    assert not place.statedir.exists()


def test_a_clone_that_cannot_be_read_at_the_end_is_said(place: Place) -> None:
    place.run("true")
    clones.remove_tree(place.clone().git)

    run_clone.report(place.spec(), "refactor", place.said.append)

    assert "it cannot be read" in " ".join(place.said)
    with pytest.raises(ClaudeProxyError):
        run(place.spec("true"), say=place.said.append)
    assert os.listdir(place.clone().tree)  # noqa: PTH208 - nothing of it was removed


def test_a_run_without_a_name_never_goes_on_in_a_clone(place: Place) -> None:
    place.run("true")
    unnamed = replace(place.spec("true"), name=None)

    with ExitStack() as held, ExitStack() as starting, pytest.raises(ConfigError, match="already"):
        run_clone.prepare(unnamed, "refactor", held, starting, place.said.append)
