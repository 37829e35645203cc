"""`container rm` removes what is named, and nothing unasked."""

from pathlib import Path

import pytest

from claude_proxy.sandbox.container import store
from tests.cli.container_life import GONE, Life, seen


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(tmp_path, monkeypatch)


def test_a_container_is_removed_with_its_record(life: Life) -> None:
    life.know(GONE)

    assert life("rm", "web") == 0
    assert store.names(life.statedir) == []


def test_one_that_runs_stays_without_force(life: Life) -> None:
    life.know(seen())

    assert life("rm", "--all") == 1
    assert store.names(life.statedir) == ["web"]


def test_what_is_not_named_is_not_removed(life: Life) -> None:
    life.know(GONE)

    assert life("rm") == 2
    assert life("rm", "--all", "web") == 2
    assert store.names(life.statedir) == ["web"]
