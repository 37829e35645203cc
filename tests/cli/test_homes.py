"""The homes that are kept are listed, and forgotten on request."""

from pathlib import Path

import pytest

from claude_proxy.cli import homes, main
from claude_proxy.cli.homes import lines_of
from claude_proxy.sandbox.agent_home import HomeInfo, prepared
from claude_proxy.sandbox.plan.agent_home import directory_of
from claude_proxy.sandbox.plan.model import AgentHome
from claude_proxy.sandbox.untrusted_trees import TreeSize


def kept(statedir: Path, project: Path) -> AgentHome:
    home = AgentHome(directory_of(statedir, project), project, (".tool/",))
    with prepared(home, lambda _: None):
        pass
    return home


def a_home(**changes: object) -> HomeInfo:
    given = {
        "project": "/src/app",
        "exists": True,
        "used_s": 0.0,
        "size": TreeSize(2048, complete=True),
        "in_use": False,
        **changes,
    }
    return HomeInfo(**given)  # type: ignore[arg-type]


def test_a_home_is_listed_with_its_size_and_project() -> None:
    heading, line = lines_of([a_home()])

    assert heading.split() == ["SIZE", "LAST", "USED", "PROJECT"]
    assert line.startswith("2.0K ")
    assert line.endswith(" /src/app")


def test_the_list_says_what_is_special_about_a_home() -> None:
    _, gone, used = lines_of(
        [a_home(exists=False, size=TreeSize(2048, complete=False)), a_home(in_use=True)]
    )

    assert gone.startswith(">2.0K")
    assert gone.endswith("/src/app  (the directory is gone)")
    assert used.endswith("(in use)")


def test_a_project_whose_name_would_control_the_terminal_is_printed_harmlessly() -> None:
    _, line = lines_of([a_home(project="/src/\x1b[2Jx")])

    assert "\x1b" not in line


def test_the_command_lists_and_forgets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    home = kept(tmp_path / "state", project)
    where = ("--statedir", str(tmp_path / "state"))

    assert main.main(["run", *where, "--list-homes"]) == 0
    assert str(project) in capsys.readouterr().out
    assert main.main(["run", *where, "--reset-home"]) == 0
    assert str(project) in capsys.readouterr().err
    assert not home.directory.exists()
    assert main.main(["run", *where, "--list-homes"]) == 0
    assert "no homes" in capsys.readouterr().err


def test_a_dry_run_forgets_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text("allow: []\n")
    words = ["--allowlist", "list.yaml", "--reset-home", "--dry-run", "true"]

    assert main.main(["run", *words]) == 2
    assert "--reset-home" in capsys.readouterr().err


def test_the_home_of_a_project_that_is_gone_can_be_forgotten(tmp_path: Path) -> None:
    home = kept(tmp_path, tmp_path / "gone")

    assert "removed" in homes.reset(tmp_path, tmp_path / "gone")
    assert "nothing is kept" in homes.reset(tmp_path, tmp_path / "gone")
    assert not home.directory.exists()
