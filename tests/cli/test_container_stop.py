"""`container stop` ends what runs; what does not run is no error."""

from pathlib import Path

import pytest

from tests.cli.container_life import GONE, Life, seen


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(tmp_path, monkeypatch)


def test_one_that_runs_is_stopped(life: Life) -> None:
    life.know(seen(), (["stop"], "", "", 0))

    assert life("stop", "--time", "3") == 0
    assert ["stop", "--time", "3", "--", "web"] in life.called


def test_one_that_does_not_run_or_is_not_there_is_no_error(life: Life) -> None:
    assert life("stop") == 0
    assert life("stop", "nowhere") == 0
    life.know(GONE)
    assert life("stop", "web") == 0
