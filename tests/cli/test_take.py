"""`claude-proxy take` says what came over, what waits and what stays in the clone."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from claude_proxy.audit.database import database_in
from claude_proxy.audit.store import AuditStore
from claude_proxy.cli import main
from claude_proxy.events import Notice
from tests.audit.examples import MOMENT
from tests.sandbox.git.cloned import Cloned, cloned
from tests.sandbox.git.repositories import commit, git, repository
from tests.sandbox.git.test_waiting_runs import live


def take(made: Cloned, capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> str:
    assert main.main(["take", made.name, *options, "--statedir", str(made.statedir)]) == code
    return capsys.readouterr().out


def test_a_branch_goes_forward_and_uncommitted_work_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloned(tmp_path)
    at = made.commit("two")
    made.write("left")

    out = take(made, capsys)

    assert f"main: {at[:12]}, forward, with the files of the project" in out
    assert "1 file with uncommitted work: only in the clone" in out


def test_what_waits_has_the_command_that_merges_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    commit(made.project, "three")

    out = take(made, capsys, code=1)

    assert "the project has other commits" in out
    assert "git merge refs/claude-proxy/refactor/main" in out


def test_a_stash_has_the_command_that_applies_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloned(tmp_path)
    for text in ("older", "newest"):
        made.write("one", text)
        made.inside("stash")

    out = take(made, capsys, code=1)

    for ref, text in (("refactor@stash", "newest"), ("refactor@stash@1", "older")):
        assert f"  to apply it: git stash apply refs/claude-proxy/{ref}\n" in out
        made.outside("stash", "apply", f"refs/claude-proxy/{ref}")
        assert (made.project / "one").read_text() == text
        made.outside("checkout", "-q", "one")


def test_nothing_new_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert take(cloned(tmp_path), capsys) == "nothing new in the clone refactor\n"


def test_json_tells_each_ref(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = cloned(tmp_path)
    at = made.commit("two")

    found = json.loads(take(made, capsys, "--branch", "main", "--json"))

    assert (found["complete"], found["checked_out"]) == (True, "main")
    assert [(ref["name"], ref["id"], ref["move"]) for ref in found["refs"]] == [
        ("refs/heads/main", at, "forward")
    ]


def test_a_clone_that_is_not_there_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["take", "none", "--statedir", str(tmp_path)]) == 1
    assert "there is no clone called 'none'" in capsys.readouterr().err


def test_a_run_without_a_clone_is_taken_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = repository(tmp_path / "project")
    for options in ((), ("--json",)):
        with live(tmp_path, "blue") as found:
            commit(project, f"new{len(options)}", directory=found.directories[0].private)
        assert main.main(["take", "blue", *options, "--statedir", str(tmp_path / "state")]) == 0

    said, found_json = capsys.readouterr().out.splitlines()
    assert "main" in said
    assert json.loads(found_json)["complete"]


def taken_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str, code: int = 0
) -> str:
    assert main.main(["take", "blue", *options, "--statedir", str(tmp_path / "state")]) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_a_run_that_has_come_over_has_nothing_left_and_its_refs_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = repository(tmp_path / "project")
    with live(tmp_path, "blue") as found:
        commit(project, "two", directory=found.directories[0].private)
    taken_again(tmp_path, capsys)
    git("update-ref", "refs/claude-proxy/blue@stash", "HEAD", at=project)
    git("update-ref", "refs/claude-proxy/bluer/main", "HEAD", at=project)
    monkeypatch.chdir(project)
    kept = ["refs/claude-proxy/blue/main", "refs/claude-proxy/blue@stash"]

    said = taken_again(tmp_path, capsys)

    assert said == (
        f"nothing left to take of the run blue: what it committed is kept as {', '.join(kept)}\n"
    )
    assert json.loads(taken_again(tmp_path, capsys, "--json"))["kept"] == kept
    assert "there is no clone" in taken_again(tmp_path, capsys, "--branch", "main", code=1)


def test_a_run_that_only_the_audit_log_knows_has_nothing_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(AuditStore(database_in(tmp_path / "state"), retention_days=1_000_000)) as store:
        store.record(Notice(MOMENT, "run-start", "run red: git", run="red"))
        assert "there is no clone" in taken_again(tmp_path, capsys, code=1)
        store.record(Notice(MOMENT + 1, "run-start", "run blue: git", run="blue"))

    assert taken_again(tmp_path, capsys) == "nothing left to take of the run blue\n"
