"""A file that an agent may have created is read without blocking."""

import os
from pathlib import Path

from claude_proxy.sandbox.safe_read import head_of, text_of


def test_the_beginning_of_a_plain_file_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 10_000)

    assert head_of(path, 16) == b"a" * 16
    assert len(head_of(path)) == 4096


def test_a_pipe_does_not_block_and_has_no_beginning(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert head_of(tmp_path / "pipe") == b""


def test_a_device_a_directory_and_nothing_have_no_beginning(tmp_path: Path) -> None:
    assert head_of(Path("/dev/zero")) == b""
    assert head_of(tmp_path) == b""
    assert head_of(tmp_path / "missing") == b""


def test_a_text_ends_at_a_nul(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"gitdir: /a\0/b")

    assert text_of(path) == "gitdir: /a"


def test_bytes_that_are_not_utf_8_survive_as_a_path(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"/\xff")

    assert os.fsencode(text_of(path)) == b"/\xff"
