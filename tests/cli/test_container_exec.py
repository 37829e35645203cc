"""`container exec` needs a running container, and its CMD after two dashes."""

from pathlib import Path

import pytest

from tests.cli.container_life import Life, seen


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(tmp_path, monkeypatch)


def test_the_command_runs_in_the_container_and_its_exit_code_is_returned(life: Life) -> None:
    life.know(seen(), (["exec"], "", "", 42))

    assert life("exec", "web", "--", "npm", "test") == 42
    assert life.called[-1] == ["exec", "--interactive", "web", "npm", "test"]


def test_that_its_proxy_is_gone_is_said(life: Life, capfd: pytest.CaptureFixture[str]) -> None:
    life.know(seen(), (["exec"], "", "", 0))

    assert life("exec", "--", "true") == 0
    assert "container start web gives it back" in capfd.readouterr().err


def test_a_command_without_dashes_is_answered_with_how_it_is_written(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    life.know(seen())

    for words in (["ls"], ["ls", "-l"]):
        assert life("exec", "web", *words) == 2
        assert "exec NAME -- CMD" in capsys.readouterr().err


def test_a_terminal_that_is_not_there_is_not_given(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    life.know(seen())

    assert life("exec", "web", "--tty", "--", "sh") == 1
    assert "no terminal" in capsys.readouterr().err
