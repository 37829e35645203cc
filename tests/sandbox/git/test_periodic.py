"""Commits come over while a run lasts, by a program that ends with its launcher."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from claude_proxy.sandbox.git import periodic, private_directory, record
from claude_proxy.sandbox.git.discovery import discover
from claude_proxy.sandbox.git.record import Record
from tests.sandbox.git.repositories import commit, git, repository
from tests.support.waiting import until


def test_it_brings_over_until_its_lifeline_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = repository(tmp_path / "tree")
    place = tmp_path / record.FOLDER / "r"
    run = Record("r", tree, place, discover(tree, None, [], place).directories)
    os.close(record.create(run))
    one = run.directories[0]
    private_directory.make(one)
    (one.private / "objects/info/alternates").write_text(f"{tree}/.git/objects\n")
    new = commit(tree, "two", directory=one.private)
    reading, writing = os.pipe()
    monkeypatch.setattr(periodic, "PAUSE_S", 0.0)
    brought = periodic._bring

    def once(place: str) -> None:
        brought(place)
        os.close(writing)

    monkeypatch.setattr(periodic, "_bring", once)

    periodic.main(reading, str(place))

    os.close(reading)
    assert git("rev-parse", "HEAD", at=tree) == new


def test_it_runs_without_installed_packages_and_survives_what_is_gone(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.append({str(Path(__file__).parents[3])!r});"
        "from claude_proxy.sandbox.git import periodic; periodic._bring(sys.argv[1])"
    )

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "at the end of the run" in done.stderr


def test_it_ends_with_its_launcher() -> None:
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-I", "-S", periodic.__file__, str(reading), "/nonexistent"],
        pass_fds=(reading,),
    ) as process:
        os.close(reading)
        os.close(writing)
        until(lambda: process.poll() is not None)

    assert process.returncode == 0
