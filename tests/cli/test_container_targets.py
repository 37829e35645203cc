"""A command is about the container that is named, or about the one that is meant."""

from pathlib import Path

import pytest

from tests.cli.container_life import GONE, Life, seen


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(tmp_path, monkeypatch)


def test_a_container_that_does_not_run_is_an_error_with_the_command_that_starts_it(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    life.know(seen("exited"))

    assert life("exec", "--", "true") == 1
    assert "container start web" in capsys.readouterr().err


def test_a_container_that_the_engine_lost_is_an_error(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    life.know(GONE)

    assert life("exec", "web", "--", "true") == 1
    assert "removed without claude-proxy" in capsys.readouterr().err


def test_without_any_container_the_error_says_how_to_make_one(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    assert life("shell") == 1
    assert "container run" in capsys.readouterr().err
