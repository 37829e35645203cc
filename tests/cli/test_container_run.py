"""`container run` reads what `run` reads, with CMD after the dashes, and refuses the rest."""

import json
import sys
from pathlib import Path

import pytest

from claude_proxy.cli import container_run
from claude_proxy.cli.main import main
from claude_proxy.sandbox.container.plan.model import ContainerSpec
from tests.support.container_parts import Case, fake_engine

IMAGE = json.dumps([{"Id": "1d", "Digest": "sha256:d16e57", "Config": {}}])
INFO = json.dumps({"host": {"security": {}}, "version": {"Version": "4.3.1"}})
CASES: tuple[Case, ...] = (
    (["image", "inspect"], IMAGE, "", 0),
    (["info"], INFO, "", 0),
    (["create"], "1d", "", 0),
    (["cp"], "", "Error: nothing there", 1),
    (["rm"], "", "", 0),
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with an engine, a home, and a project that is the working directory."""
    fake_engine(tmp_path / "bin", *CASES)
    for name in ("home", "project", "runtime"):
        (tmp_path / name).mkdir(mode=0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def spec_of(*words: str) -> ContainerSpec:
    context = container_run.command.make_context("run", list(words))
    with context:
        return container_run.spec_of(context, context.params)


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = main(["container", "run", *words])
    assert code == 2
    return capsys.readouterr().err


def test_what_follows_the_dashes_is_the_command(project: Path) -> None:
    spec = spec_of("--image", "box", "--name", "web", "--", "sh", "-c", "echo --image --")

    assert spec.run.sandbox.command == ("sh", "-c", "echo --image --")
    assert (spec.name, spec.image, spec.run.sandbox.project) == ("web", "box", project)


@pytest.mark.usefixtures("project")
def test_without_a_command_there_is_the_images_own() -> None:
    assert spec_of("--image", "box").run.sandbox.command == ()


def test_the_project_is_named_by_position_or_by_option(project: Path) -> None:
    (project / "web").mkdir()

    for words in (["web"], ["--dir", "web"], [str(project / "web")]):
        assert spec_of(*words, "--image", "box").run.sandbox.project == project / "web"


@pytest.mark.usefixtures("project")
def test_a_project_that_is_named_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "named twice" in error_of(capsys, ".", "--dir", ".", "--image", "box")


@pytest.mark.usefixtures("project")
def test_a_command_without_dashes_is_told_from_a_directory(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "write -- before it" in error_of(capsys, "--image", "box", "nowhere")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("option", ["--privileged", "--network=host", "--cap-add=ALL", "--proxy=x"])
def test_what_would_open_the_wall_is_no_option(
    capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert "no such option" in error_of(capsys, option, "--image", "box", "--", "true")


@pytest.mark.usefixtures("project")
def test_a_network_that_nothing_filters_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    found = error_of(capsys, "--policy", "open", "--image", "box", "--", "true")

    assert "no network but the proxy" in found


@pytest.mark.usefixtures("project")
def test_a_dry_run_prints_the_plan_and_keeps_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--image", "box", "--name", "web", "--statedir", str(tmp_path / "state"), "--dry-run"]

    assert main(["container", "run", *words, "--", "true"]) == 0

    out = capsys.readouterr().out
    assert "# way: enter" in out
    assert "--cap-drop ALL" in out
    assert not (tmp_path / "state" / "containers" / "web").exists()


def test_the_words_for_a_later_start_have_absolute_paths_and_the_name(project: Path) -> None:
    (project / "list.yaml").write_text("allow: []\n")
    spec = spec_of(
        "--image=box", "--allowlist", "../project/list.yaml", "--detach", "--", "sh", "-c"
    )

    assert spec.words[:3] == (str(project), "--name", spec.name)
    assert "--image=box" in spec.words
    assert "--detach" in spec.words
    assert any(
        word.startswith("--allowlist=/") and word.endswith("/list.yaml") for word in spec.words
    )
    assert spec.words[-3:] == ("--", "sh", "-c")


@pytest.mark.usefixtures("project")
def test_the_words_for_a_later_start_say_the_same_again() -> None:
    first = spec_of("--image", "box", "--cpus", "2", "--rm", "--", "sh")

    again = spec_of(*first.words)

    assert (again.name, again.image, again.cpus, again.remove) == (first.name, "box", 2.0, True)
    assert again.run.sandbox.command == ("sh",)
    assert again.words == first.words


def test_its_help_speaks_of_a_container_and_never_of_the_sandbox_of_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["container", "run", "--help"])
    said = " ".join(capsys.readouterr().out.split())

    assert "bwrap" not in said
    assert "Print the plan of the container" in said
    assert "/tmp, /var/tmp, /run and /dev/shm" in said
