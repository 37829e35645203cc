"""`container shell` takes bash, else sh, and says where there is neither."""

import os
from pathlib import Path

import pytest

from tests.cli.container_life import Life, seen

MISSING = "Error: executable file not found: OCI runtime attempted to invoke it\n"


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(tmp_path, monkeypatch)


def test_its_exit_code_is_that_of_the_shell(life: Life) -> None:
    life.know(seen(pid=os.getpid()), (["exec"], "", "", 3))

    assert life("shell") == 3
    assert life.called[-1][-1] in {"bash", "sh"}


def test_an_image_without_a_shell_is_an_error_that_names_another_way(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    life.know(seen(pid=os.getpid()), (["exec"], "", MISSING, 127))

    assert life("shell", "web") == 1
    assert "no shell in the container" in capsys.readouterr().err
