"""Commits of live runs come over on demand: of those that go on, and of killed ones."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from claude_proxy.sandbox.git import private_directory, private_repositories, record, waiting_runs
from claude_proxy.sandbox.git.record import FOLDER, Record
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.plan.model import Profile, SandboxSpec
from tests.sandbox.git.cloned import environ
from tests.sandbox.git.repositories import commit, git, repository


@contextmanager
def live(tmp_path: Path, name: str) -> Iterator[GitMounts]:
    """Lend the Git directories of a run whose launcher is killed on the way out."""
    spec = SandboxSpec(("true",), tmp_path / "project", Profile("shell"))
    found = private_repositories.found_in(spec, tmp_path / "state", name)
    place = found.directories[0].private.parent
    with ExitStack() as launcher:
        made = Record(name, spec.project, place, found.directories)
        launcher.callback(os.close, record.create(made))
        for directory in found.directories:
            private_directory.make(directory)
            # Inside, the objects of the host are mounted at the path that is named there.
            alternates = directory.private / "objects/info/alternates"
            alternates.write_text(f"{directory.host}/objects\n")
        yield found


def test_a_run_that_goes_on_is_brought_over_and_kept(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    with live(tmp_path, "blue") as found:
        private = found.directories[0].private
        at = commit(project, "two", directory=private)

        brought = waiting_runs.take(tmp_path / "state", "blue")

        assert brought is not None
        assert [done.complete for _, done in brought] == [True]
        assert private.is_dir()
    assert git("rev-parse", "main", at=project) == at


def test_a_run_whose_launcher_was_killed_is_brought_over_and_removed(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    with live(tmp_path, "blue") as found:
        at = commit(project, "two", directory=found.directories[0].private)

    assert waiting_runs.take(tmp_path / "state", "blue")

    assert git("rev-parse", "main", at=project) == at
    assert not list((tmp_path / "state" / FOLDER).iterdir())


def test_another_run_is_left_alone(tmp_path: Path) -> None:
    repository(tmp_path / "project")
    with live(tmp_path, "blue"):
        pass

    assert waiting_runs.take(tmp_path / "state", "red") is None
    assert waiting_runs.take(tmp_path / "nowhere", "red") is None
    assert [path.name for path in (tmp_path / "state" / FOLDER).iterdir()] == ["blue"]


def test_what_keeps_a_runs_commits_is_found_by_its_name(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    for ref in ("blue/a/b", "blue@stash", "bluer/main", "other/blue/x"):
        git("update-ref", f"refs/claude-proxy/{ref}", "HEAD", at=project)

    assert waiting_runs.kept_of("blue", project, environ()) == [
        "refs/claude-proxy/blue/a/b",
        "refs/claude-proxy/blue@stash",
    ]
    assert waiting_runs.kept_of("red", project, environ()) == []
    assert waiting_runs.kept_of("blue", tmp_path, environ()) == []
