"""`container update`: for a container that there is."""

from pathlib import Path

import pytest

from claude_proxy.cli.main import main


def places(directory: Path) -> list[str]:
    return ["--confdir", str(directory / "conf"), "--statedir", str(directory / "state")]


def test_a_container_that_does_not_exist_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["container", "update", "none", *places(tmp_path)]) == 1

    assert 'there is no container "none"' in capsys.readouterr().err


def test_an_address_is_for_a_mirror(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["container", "update", "none", "--address", "10.0.0.1", *places(tmp_path)]

    assert main(words) == 2

    assert "--mirror" in capsys.readouterr().err
