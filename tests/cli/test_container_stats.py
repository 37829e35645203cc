"""`container stats` counts what runs, and says that nothing does."""

import json
import os
from pathlib import Path

import pytest

from tests.cli.container_life import Life, seen


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(tmp_path, monkeypatch)


def test_what_a_running_container_uses_is_shown(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    life.know(seen(pid=os.getpid()))

    assert life("stats", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["name"] == "web"
    assert row["processes"] >= 1
    assert (row["allowed"], row["denied"]) == (0, 0)


def test_that_none_runs_is_said(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    life.know(seen("exited"))

    assert life("stats") == 0
    assert "no container runs" in capsys.readouterr().err
