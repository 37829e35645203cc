"""`container import`: a file that exists, for a container that there is."""

from pathlib import Path

import pytest

from claude_proxy.cli.main import main


def test_the_file_has_to_exist(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["container", "import", "web", str(tmp_path / "none"), "--statedir", str(tmp_path)]

    assert main(words) == 2

    assert "does not exist" in capsys.readouterr().err


def test_the_container_has_to_exist(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "x.tar.gz"
    file.touch()

    assert main(["container", "import", "none", str(file), "--statedir", str(tmp_path)]) == 1

    assert 'there is no container "none"' in capsys.readouterr().err
