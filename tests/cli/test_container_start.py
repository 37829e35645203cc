"""`container start` takes only what `container run` has made."""

from pathlib import Path

import pytest

from claude_proxy.cli.main import main


def test_a_container_that_nobody_knows_cannot_be_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["container", "start", "web", "--statedir", str(tmp_path)]) == 1

    assert 'there is no container "web"' in capsys.readouterr().err


def test_a_name_that_leads_elsewhere_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["container", "start", "../web", "--statedir", str(tmp_path)]) == 2

    assert "cannot be the name" in capsys.readouterr().err
