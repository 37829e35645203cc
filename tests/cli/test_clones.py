"""`claude-proxy clones` lists clones, and removes none with work in it unasked."""

import json
from pathlib import Path

import pytest

from claude_proxy.cli import main
from claude_proxy.sandbox.git import clones
from tests.sandbox.git.cloned import Cloned, cloned
from tests.sandbox.git.repositories import commit


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
    assert row.split()[:4] == ["refactor", "main", "1", "1"]
    assert "not taken" in row
    assert row.endswith(str(made.project))


def test_json_has_a_line_for_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = cloned(tmp_path)

    found = json.loads(run(made, capsys, "--json"))

    assert (found["clone"], found["commits"], found["taken"], found["running"]) == (
        "refactor",
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

    refused = run(made, capsys, "--remove", "refactor", code=1)

    said = {
        "file": "1 file with uncommitted work would be lost",
        "stash": "1 stash that is not taken would be lost",
    }
    assert said.get(work, "1 commit that is not taken would be lost") in refused
    assert made.clone.tree.is_dir()
    run(made, capsys, "--remove", "refactor", "--force")
    assert clones.all_in(made.statedir) == []


def test_a_clone_that_was_taken_is_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    made.take()

    assert "removed the clone refactor" in run(made, capsys, "--remove", "refactor")
    assert clones.all_in(made.statedir) == []


def diverged(tmp_path: Path) -> Cloned:
    """Make a clone with a commit that the project keeps beside its own."""
    made = cloned(tmp_path)
    made.commit("two")
    commit(made.project, "three")
    assert not made.take().complete
    return made


def test_a_clone_whose_commits_are_kept_beside_the_branch_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = diverged(tmp_path)

    _, row, note = run(made, capsys).splitlines()

    assert row.split()[2:4] == ["0", "0"]
    assert "  kept  " in row
    assert "kept as refs/claude-proxy/refactor/…" in note
    assert "removed the clone refactor" in run(made, capsys, "--remove", "refactor")


def test_of_a_kept_clone_only_newer_commits_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = diverged(tmp_path)
    made.commit("four")
    made.commit("five")

    refused = run(made, capsys, "--remove", "refactor", code=1)

    assert "2 commits that are not taken would be lost" in refused


def test_a_ref_that_leads_nowhere_does_not_make_the_others_untaken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = diverged(tmp_path)
    (made.clone.git / "refs/heads/bad").write_text("ref: refs/heads/none\n")

    refused = run(made, capsys, "--remove", "refactor", code=1)

    assert "damaged" in run(made, capsys)
    assert "what could not be read ('refs/heads/bad' leads nowhere) would be lost" in refused
    assert "not taken" not in refused


def test_a_tag_without_a_commit_of_its_own_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloned(tmp_path)
    made.inside("tag", "-a", "v1", "-m", "one")

    assert "(refs/tags/v1) would be lost" in run(made, capsys, "--remove", "refactor", code=1)


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_clone_that_a_run_uses_is_never_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], force: tuple[str, ...]
) -> None:
    made = cloned(tmp_path)

    with clones.locked(made.clone.path):
        assert "running" in run(made, capsys)
        assert "a run is working" in run(made, capsys, "--remove", "refactor", *force, code=1)

    assert made.clone.tree.is_dir()


def test_a_damaged_clone_is_listed_and_not_removed_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloned(tmp_path)
    clones.remove_tree(made.clone.git)

    assert "damaged" in run(made, capsys)
    assert "cannot be read" in run(made, capsys, "--remove", "refactor", code=1)


def test_force_is_for_remove(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["clones", "--force", "--statedir", str(tmp_path)]) == 2
    assert "--remove" in capsys.readouterr().err
