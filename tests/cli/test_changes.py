"""`claude-proxy changes` shows what a clone changed, and nothing that a terminal obeys."""

import json
from pathlib import Path

import pytest

from claude_proxy.cli import main
from claude_proxy.sandbox.git import clones
from tests.sandbox.git.cloned import Cloned, cloned
from tests.sandbox.git.repositories import commit


def shown(made: Cloned, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main.main(["changes", made.name, *options, "--statedir", str(made.statedir)]) == 0
    return capsys.readouterr().out


def test_what_to_look_at_first_comes_before_the_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloned(tmp_path)
    made.write("tool", "echo\n", 0o755)
    made.inside("add", ".")
    made.inside("commit", "-qm", "a tool")
    made.write("later", "uncommitted\n")
    made.write("nested/.git/HEAD")

    out = shown(made, capsys)

    order = ("a tool", "tool: new executable", "not committed", "nested: a rep", "+echo", "+uncom")
    places = [out.index(text) for text in order]
    assert places == sorted(places)


def test_escapes_in_names_messages_and_text_are_written_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloned(tmp_path)
    made.write("a\x1b]0;name\x07\u202e", "\x1b[2Jtext\r\n")
    made.inside("add", ".")
    made.inside("commit", "-qm", "subject \x1b[31m")
    made.write("link").unlink()
    (made.clone.tree / "link").symlink_to("/etc/\x1bpasswd")

    for options in ((), ("--stat",), ("--json",)):
        out = shown(made, capsys, *options)
        assert not [char for char in out if char != "\n" and not char.isprintable()]
    assert r"\x1b[2Jtext" in shown(made, capsys)


def test_json_has_everything_and_stat_leaves_the_text_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloned(tmp_path)
    at = made.commit("two")
    (made.clone.tree / "one").unlink()

    whole = json.loads(shown(made, capsys, "--json"))
    short = json.loads(shown(made, capsys, "--json", "--stat"))

    assert (whole["head"], whole["commit_count"], whole["branch"]) == (at, 1, "main")
    assert [file["path"] for file in whole["committed"]] == ["two"]
    assert [(file["path"], file["change"]) for file in whole["uncommitted"]] == [("one", "removed")]
    assert "+two" in whole["diff"]
    assert whole.keys() - short.keys() == {"diff", "uncommitted_diff"}


def test_what_was_taken_is_shown_again_on_demand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    made.take()

    assert "+two" not in shown(made, capsys)
    assert "+two" in shown(made, capsys, "--all")


def test_a_clone_that_is_not_there_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["changes", "none", "--statedir", str(tmp_path)]) == 1
    assert "there is no clone called 'none'" in capsys.readouterr().err


def test_commits_that_cannot_be_read_are_not_called_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    clones.remove_tree(made.clone.git / "objects")

    out = shown(made, capsys)

    assert "no commits" not in out
    assert "not everything could be read" in out


def test_what_the_project_keeps_beside_its_branch_is_said_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    commit(made.project, "three")
    made.take()

    assert "refs/heads/main: 1 ahead, kept as refs/claude-proxy/refactor/main" in shown(
        made, capsys
    )
