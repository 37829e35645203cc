"""What runs, and which of it is meant."""

import os
import sys
from pathlib import Path

import click
import pytest

from claude_proxy.cli import running
from claude_proxy.control.client import AmbiguousError
from claude_proxy.control.protocol import ControlError
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.sandbox.run_directory import RunDirectory
from tests.support.control import Running, facts, says

COMMAND = click.Command("status")


def names_begun(begun: str) -> list[str]:
    param = click.Argument(["name"])
    return [one.value for one in running.complete_names(click.Context(COMMAND), param, begun)]


def test_a_run_that_no_proxy_is_for_is_one_without_a_proxy(machine: Running) -> None:
    machine.starts(facts("web", project="/code"), says())
    with RunDirectory.make(["sleep"], name="lone", above=machine.base, project=Path("/there")):
        (lone,) = running.runs_without_proxy(running.proxies())

    assert (lone.name, lone.pid, lone.program) == ("lone", os.getpid(), "sleep")
    assert lone.project == "/there"


def test_the_run_of_a_proxy_is_no_run_without_one(machine: Running) -> None:
    machine.starts(facts("web", project="/code"), says())
    with RunDirectory.make(["sleep"], name="web", above=machine.base):
        assert running.runs_without_proxy(running.proxies()) == []


def test_the_only_proxy_is_meant(machine: Running) -> None:
    machine.starts(facts("web", project="/code"), says())

    assert running.meant(None).name == "web"


def test_the_proxy_of_this_directory_is_meant(
    machine: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.starts(facts("web", project="/code"), says())
    machine.starts(facts("here", project=str(tmp_path)), says())
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")

    assert running.meant(None).name == "here"


def test_a_script_gets_an_error_that_names_all(machine: Running) -> None:
    machine.starts(facts("web", project="/code"), says())
    machine.starts(facts("api", project="/other"), says())

    with pytest.raises(AmbiguousError) as raised:
        running.meant(None)

    assert raised.value.where == "api, web"
    assert raised.value.exit_code == 2


def test_a_person_is_asked(machine: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.starts(facts("api", project="/other"), says())
    machine.starts(facts("web", project="/code"), says())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "prompt", lambda *_, **__: 2)

    assert running.meant(None).name == "web"


def test_a_removed_working_directory_is_no_obstacle(
    machine: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.starts(facts("web", project="/code"), says())
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert running.meant(None).name == "web"


def test_all_are_all_and_no_name_beside(machine: Running) -> None:
    machine.starts(facts("web"), says())

    assert [one.name for one in running.chosen(None, every=True)] == ["web"]
    with pytest.raises(ControlError, match="--all names every proxy"):
        running.chosen("web", every=True)


@pytest.mark.usefixtures("machine")
def test_all_of_none_is_an_error() -> None:
    with pytest.raises(ControlError, match="no proxy of this user runs"):
        running.chosen(None, every=True)


def test_names_are_completed(machine: Running) -> None:
    machine.starts(facts("web"), says())
    machine.starts(facts("api"), says())

    assert names_begun("") == ["api", "web"]
    assert names_begun("w") == ["web"]


def test_completion_says_nothing_where_nothing_can_be_listed(machine: Running) -> None:
    machine.base.mkdir()
    machine.base.chmod(0o755)

    assert names_begun("") == []


def test_each_problem_of_an_error_begins_with_the_program(
    capsys: pytest.CaptureFixture[str],
) -> None:
    running.print_error(ConfigErrors([ConfigError("one", fix="do"), ConfigError("two")]))

    assert capsys.readouterr().err.splitlines() == [
        "claude-proxy: error: one",
        "  fix:   do",
        "claude-proxy: error: two",
    ]
