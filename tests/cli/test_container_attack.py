"""`container attack` is about a container that is there."""

from pathlib import Path

import pytest

from tests.cli.container_life import GONE, Life


def test_a_container_that_is_gone_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    life = Life(tmp_path, monkeypatch)
    life.know(GONE)

    assert life("attack", "web") == 1
    assert "removed without claude-proxy" in capsys.readouterr().err
