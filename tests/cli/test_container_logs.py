"""`container logs` is the engine's own, of a container that is ours."""

from pathlib import Path

import pytest

from tests.cli.container_life import GONE, Life


def test_of_a_container_that_is_gone_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    life = Life(tmp_path, monkeypatch)
    life.know(GONE)

    assert life("logs", "web") == 1
    assert "removed without claude-proxy" in capsys.readouterr().err
