"""Laws of the .env file: one that others can change is refused; a missing one is no error."""

import os
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.vault import dotenv_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    path = tmp_path / ".env"
    path.write_text("KEY=canary\n")
    path.chmod(0o600)
    return path


def test_no_file_is_no_error(tmp_path: Path) -> None:
    assert dotenv_file.read(tmp_path / ".env") is None


@pytest.mark.parametrize(("mode", "shared"), [(0o600, False), (0o640, True), (0o644, True)])
def test_a_file_that_others_can_read_is_marked_as_shared(
    path: Path, mode: int, *, shared: bool
) -> None:
    path.chmod(mode)

    found = dotenv_file.read(path)

    assert found is not None
    assert found.shared is shared


@pytest.mark.parametrize("mode", [0o602, 0o622, 0o666])
def test_a_file_that_others_can_write_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)

    with pytest.raises(ConfigError, match="can be changed by other users"):
        dotenv_file.read(path)


def test_a_file_that_others_can_replace_is_refused(path: Path) -> None:
    path.parent.chmod(0o777)

    with pytest.raises(ConfigError, match="can be changed by other users"):
        dotenv_file.read(path)


def test_a_pipe_or_device_is_refused_without_blocking_the_start(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)

    with pytest.raises(ConfigError, match="not a regular file"):
        dotenv_file.read(path)


def test_a_link_that_leads_nowhere_is_refused(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone")

    with pytest.raises(ConfigError, match="cannot be read"):
        dotenv_file.read(path)


def test_a_directory_of_that_name_is_ignored(path: Path) -> None:
    path.unlink()
    path.mkdir()

    assert dotenv_file.read(path) is None


def test_a_name_below_a_file_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        dotenv_file.read(path / ".env")
