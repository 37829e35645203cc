"""A preset is an image, a profile and a command; an image that is missing names its build."""

from pathlib import Path
from typing import Any

import click
import pytest

from claude_proxy.cli import container_presets
from claude_proxy.cli.container_run import command, spec_of
from claude_proxy.cli.main import main
from claude_proxy.sandbox.container.plan.model import ContainerSpec

PODMAN = """\
#!/bin/sh
case "$1" in
    info) echo '{"host": {}, "version": {}}' ;;
    *) echo "Error: no such image" >&2; exit 125 ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = tmp_path / "project"
    project.mkdir()
    program = tmp_path / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(PODMAN)
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    return project


def spec(project: Path, *words: str) -> ContainerSpec:
    with command.make_context("run", [str(project), *words]) as context:
        return spec_of(context, context.params)


def image(**given: Any) -> str:
    return container_presets.image_of({"image": None, "build": None, "preset": None, **given})


def test_a_preset_has_its_image_profile_command_and_no_telemetry(project: Path) -> None:
    found = spec(project, "--preset", "claude")

    assert found.image == "localhost/claude-proxy-claude:latest"
    assert found.run.sandbox.command == ("claude",)
    assert found.run.sandbox.profile.name == "claude"
    variables = dict(found.run.sandbox.profile.set_env)
    assert variables["DISABLE_TELEMETRY"] == "1"
    assert variables["IS_SANDBOX"] == "1"
    assert not found.yolo


def test_another_command_keeps_the_profile_of_the_preset(project: Path) -> None:
    found = spec(project, "--preset", "codex", "--", "bash", "-l")

    assert found.run.sandbox.command == ("bash", "-l")
    assert found.run.sandbox.profile.name == "codex"
    assert found.run.settings.policy == "codex"


def test_another_image_may_be_used_with_a_preset(project: Path) -> None:
    assert spec(project, "--preset", "claude", "--image", "mine").image == "mine"


def test_an_agent_in_any_image_sends_no_telemetry(project: Path) -> None:
    found = spec(project, "--image", "mine", "--", "claude")

    assert dict(found.run.sandbox.profile.set_env)["DISABLE_TELEMETRY"] == "1"


def test_yolo_is_for_an_agent(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert spec(project, "--preset", "claude", "--yolo", "--", "bash").yolo

    assert main(["container", "run", str(project), "--image", "x", "--yolo", "--", "sh"]) == 2
    assert "--yolo" in capsys.readouterr().err


def test_the_words_to_start_again_name_the_preset(project: Path) -> None:
    found = spec(project, "--preset", "claude", "--yolo")

    assert "--preset=claude" in found.words
    assert "--yolo" in found.words


def test_an_image_that_is_missing_names_the_command_that_builds_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["container", "run", str(project), "--preset", "gemini"]) == 1

    err = capsys.readouterr().err
    assert "the image of the preset gemini is not on this machine" in err
    assert "claude-proxy container build --preset gemini" in err


def test_a_containerfile_has_an_image_of_its_own(tmp_path: Path) -> None:
    one, two = (image(build=tmp_path / name) for name in ("one", "two"))

    assert one != two
    assert one == image(build=tmp_path / "one")


@pytest.mark.parametrize("given", [{}, {"image": "x", "build": Path("y")}])
def test_no_image_and_two_images_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(click.UsageError, match="image"):
        image(**given)


def test_a_build_that_fails_runs_nothing(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "Containerfile"
    file.write_text("FROM x\n")
    words = [f"--confdir={tmp_path / 'c'}", f"--statedir={tmp_path / 's'}", "--", "true"]

    assert main(["container", "run", str(project), "--build", str(file), *words]) == 1

    err = capsys.readouterr().err
    assert "the build failed" in err
    assert "no such image" in err
