"""`claude-proxy clones` lists clones, and removes none with work in it unasked."""

import json
from pathlib import Path

import pytest

from claude_proxy.cli import main
from claude_proxy.sandbox.git import clones
from tests.sandbox.git.cloned import Cloned, cloned


def run(made: Cloned, capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> str:
    assert main.main(["clones", *options, "--statedir", str(made.statedir)]) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_a_clone_is_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    made.write("left")

    heading, row = run(made, capsys).splitlines()

    assert heading.split()[:4] == ["NAME", "BRANCH", "COMMITS", "UNCOMMITTED"]
    assert row.split()[:4] == ["work", "main", "1", "1"]
    assert "not taken" in row
    assert row.endswith(str(made.project))


def test_json_has_a_line_for_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = cloned(tmp_path)

    found = json.loads(run(made, capsys, "--json"))

    assert (found["clone"], found["commits"], found["taken"], found["running"]) == (
        "work",
        0,
        True,
        False,
    )


def test_no_clones_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["clones", "--statedir", str(tmp_path)]) == 0
    assert "run --clone" in capsys.readouterr().err


@pytest.mark.parametrize("work", ["commit", "file", "stash", "branch"])
def test_a_clone_with_work_is_not_removed_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], work: str
) -> None:
    made = cloned(tmp_path)
    match work:
        case "commit":
            made.commit("two")
        case "file":
            made.write("two")
        case "stash":
            made.write("one", "changed")
            made.inside("stash")
        case "branch":
            made.inside("checkout", "-q", "-b", "other")
            made.commit("two")
            made.inside("checkout", "-q", "main")

    refused = run(made, capsys, "--remove", "work", code=1)

    assert "would be lost" in refused
    assert made.clone.tree.is_dir()
    run(made, capsys, "--remove", "work", "--force")
    assert clones.all_in(made.statedir) == []


def test_a_clone_that_was_taken_is_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    made.take()

    assert "removed the clone work" in run(made, capsys, "--remove", "work")
    assert clones.all_in(made.statedir) == []


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_clone_that_a_run_uses_is_never_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], force: tuple[str, ...]
) -> None:
    made = cloned(tmp_path)

    with clones.locked(made.clone.path):
        assert "running" in run(made, capsys)
        assert "a run is working" in run(made, capsys, "--remove", "work", *force, code=1)

    assert made.clone.tree.is_dir()


def test_a_damaged_clone_is_listed_and_not_removed_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloned(tmp_path)
    clones.remove_tree(made.clone.git)

    assert "damaged" in run(made, capsys)
    assert "cannot be read" in run(made, capsys, "--remove", "work", code=1)


def test_force_is_for_remove(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["clones", "--force", "--statedir", str(tmp_path)]) == 2
    assert "--remove" in capsys.readouterr().err
