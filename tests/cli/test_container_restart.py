"""`container restart` is about a container that is there."""

from pathlib import Path

import pytest

from claude_proxy.deferred.data_classes import replace
from tests.cli.container_life import GONE, Life, seen
from tests.sandbox.container.test_store import STORED, kept


def test_a_container_that_is_gone_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    life = Life(tmp_path, monkeypatch)
    life.know(GONE)

    assert life("restart", "web") == 1
    assert "removed without claude-proxy" in capsys.readouterr().err


def test_none_is_stopped_if_one_of_them_is_removed_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    life = Life(tmp_path, monkeypatch)
    life.know(seen())
    kept(life.statedir, replace(STORED, name="zoo", remove=True))

    assert life("restart", "--all") == 1
    assert '"zoo" is removed when it ends' in capsys.readouterr().err
    assert not any(words[0] == "stop" for words in life.called)
