"""A run with Git directories of its own has a process that brings its commits over."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from claude_proxy.sandbox.commit_bringer import commit_bringer
from claude_proxy.sandbox.plan.git_facts import GitDirectory, GitMounts
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import open_log
from tests.support.processes import has_ended


@pytest.fixture
def run_directory() -> Iterator[RunDirectory]:
    """A run's directory, in a path that leaves room for a socket's name."""
    with (
        tempfile.TemporaryDirectory(prefix="run-") as above,
        RunDirectory.make(["x"], above=Path(above)) as made,
    ):
        yield made


def test_it_runs_as_long_as_the_run(tmp_path: Path, run_directory: RunDirectory) -> None:
    git = GitMounts((GitDirectory(tmp_path, tmp_path / "0", tmp_path / "0.start"),))
    with closing(open_log(tmp_path, "r")) as log, commit_bringer(git, run_directory, log):
        lines = (run_directory.path / "record").read_text().splitlines()
        pid = json.loads(lines[-1])["pid"]
        words = Path(f"/proc/{pid}/cmdline").read_bytes()

    assert b"periodic.py" in words
    assert has_ended(pid)


def test_a_run_without_a_repository_has_none(tmp_path: Path, run_directory: RunDirectory) -> None:
    before = (run_directory.path / "record").read_text()

    with (
        closing(open_log(tmp_path, "r")) as log,
        commit_bringer(GitMounts(), run_directory, log),
    ):
        assert (run_directory.path / "record").read_text() == before
