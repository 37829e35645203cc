"""`container export`: for a container that there is."""

from pathlib import Path

import pytest

from claude_proxy.cli.main import main


def test_a_container_that_does_not_exist_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "x.tar.gz"

    assert main(["container", "export", "none", str(file), "--statedir", str(tmp_path)]) == 1

    assert 'there is no container "none"' in capsys.readouterr().err
    assert not file.exists()
