"""A password file is its owner's alone, and no error quotes what is in it."""

import os
from pathlib import Path

import pytest

from claude_proxy.config.proxy_auth import read_credentials
from claude_proxy.config.settings import ClientCredentials
from claude_proxy.errors import ConfigError


def written(path: Path, text: bytes, mode: int = 0o600) -> Path:
    file = path / "password"
    file.write_bytes(text)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("text", "user", "password"),
    [
        (b"me:hunter2", "me", "hunter2"),
        (b"me:hunter2\n", "me", "hunter2"),
        (b"me:hunter2\r\n", "me", "hunter2"),
        (b"me:with: colons and spaces\n", "me", "with: colons and spaces"),
        ("jürgen:geheim\n".encode(), "jürgen", "geheim"),
    ],
)
def test_user_and_password_are_read(tmp_path: Path, text: bytes, user: str, password: str) -> None:
    assert read_credentials(written(tmp_path, text, 0o400)) == ClientCredentials(user, password)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"hunter2\n",
        b":hunter2\n",
        b"hunter2:\n",
        b"me:hunter2\nyou:hunter2\n",
        b"\nme:hunter2\n",
        b"me:hunter2\x00\n",
        b"me:hunter2\x1b\n",
        b"me:hunter2\xff\n",
        b"me:hunter2" + b"x" * 255,
        b"hunter2" * 200,
    ],
)
def test_what_is_no_password_is_refused_without_a_word_of_it(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        read_credentials(written(tmp_path, text))

    assert "hunter2" not in "".join(caught.value.lines())
    assert caught.value.__cause__ is None
    assert caught.value.fix == "write USER:PASSWORD into it, on one line"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o644])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="not its owner's alone") as caught:
        read_credentials(written(tmp_path, b"me:hunter2", mode))

    assert f"{mode:04o}" in str(caught.value.where)


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    file = written(tmp_path, b"me:hunter2")
    os.chown(file, 65533, -1)

    with pytest.raises(ConfigError, match="belongs to another user"):
        read_credentials(file)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)

    with pytest.raises(ConfigError, match="not a regular file"):
        read_credentials(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="cannot be read: no such file"):
        read_credentials(tmp_path / "missing")
