"""`container init` writes files, and overwrites nothing unseen."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from claude_proxy.cli.main import main

ACTION = ".github/actions/claude-proxy/action.yml"


def init(place: Path, *words: str) -> int:
    return main(["container", "init", "github-action", str(place), *words])


def test_the_file_is_written_and_the_next_step_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path) == 0

    out = capsys.readouterr().out
    assert out.startswith(f"wrote {tmp_path / ACTION}\nnext: ")


def test_a_file_that_is_the_same_is_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path)
    capsys.readouterr()

    assert init(tmp_path) == 0
    assert capsys.readouterr().out == f"unchanged: {tmp_path / ACTION}\n"


def changed(tmp_path: Path) -> Path:
    init(tmp_path)
    path = tmp_path / ACTION
    path.write_text(path.read_text().replace("using: composite", "using: \x1b[31mmine"))
    return path


def test_without_a_terminal_a_changed_file_is_shown_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = changed(tmp_path).read_text()
    capsys.readouterr()

    assert init(tmp_path) == 1

    said = capsys.readouterr()
    assert "+  using: composite" in said.out
    assert "\x1b" not in said.out
    assert "--force" in said.err
    assert (tmp_path / ACTION).read_text() == before


def test_with_force_it_is_shown_and_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(tmp_path)
    capsys.readouterr()

    assert init(tmp_path, "--force") == 0

    assert "+  using: composite" in capsys.readouterr().out
    assert "using: composite" in (tmp_path / ACTION).read_text()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_on_a_terminal_the_owner_decides(tmp_path: Path, answer: str, code: int) -> None:
    before = changed(tmp_path).read_text()
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "claude_proxy", "container", "init", "github-action"]
    with subprocess.Popen(
        [*words, str(tmp_path)], stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs
    ) as process:
        os.close(theirs)
        os.write(ours, answer.encode())
        assert process.wait() == code
    os.close(ours)

    assert ((tmp_path / ACTION).read_text() == before) is (code == 1)


def test_the_file_can_be_printed_instead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path)
    capsys.readouterr()

    assert init(tmp_path, "--stdout") == 0
    assert capsys.readouterr().out == (tmp_path / ACTION).read_text()


@pytest.mark.parametrize("words", [("--image", "a"), ("--pods", "one"), ("--name", "A")])
def test_an_option_that_cannot_apply_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert init(tmp_path, *words) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("user", "engine", "expected"),
    [
        (0, (), "podman-root"),
        (1000, (), "podman"),
        (0, ("--engine", "podman"), "podman"),
        (1000, ("--engine", "podman-root"), "podman-root"),
    ],
)
def test_the_engine_is_podman_as_the_user_has_it(
    user: int,
    engine: tuple[str, ...],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)

    assert main(["container", "init", "compose", str(tmp_path), "--stdout", *engine]) == 0
    is_roots = "--engine podman-root`" in capsys.readouterr().out
    assert is_roots == (expected == "podman-root")


def test_quadlet_has_no_docker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["container", "init", "quadlet", str(tmp_path), "--engine", "docker"]) == 2
    assert "only podman reads quadlet files" in capsys.readouterr().err
