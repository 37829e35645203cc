"""A command is about the container that is named, or about the one that is meant."""

from pathlib import Path

import pytest

from claude_proxy.deferred.data_classes import replace
from claude_proxy.sandbox.container import store
from tests.cli.container_life import GONE, Life, seen
from tests.sandbox.container.test_store import STORED


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


@pytest.mark.parametrize("words", [("exec", "--", "true"), ("shell",), ("verify",)])
def test_of_several_that_are_stopped_none_is_called_running(
    life: Life, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    life.know(seen("exited"))
    two(life)

    assert life(*words) == 1

    said = capsys.readouterr().err
    assert "no container runs" in said
    assert "container start" in said


def test_to_stop_none_of_several_that_are_stopped_is_no_error(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    life.know(seen("exited"))
    two(life)

    assert life("stop") == 0
    assert "no container runs" in capsys.readouterr().err


def two(life: Life) -> None:
    """Keep a second container."""
    store.make_directory(store.directory_of(life.statedir, "api"))
    store.save(life.statedir, replace(STORED, name="api"))
