"""The laws of file stamps: any change shows, and no file is no stamp."""

import os
from pathlib import Path

import pytest

from claude_proxy.vault.file_stamp import stamp_of_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("one")
    return path


def test_an_unchanged_file_keeps_its_stamp(path: Path) -> None:
    stamp = stamp_of_file(path)
    path.read_text()

    assert stamp is not None
    assert stamp_of_file(path) == stamp


def test_a_replaced_file_has_another_stamp(path: Path) -> None:
    stamp = stamp_of_file(path)
    other = path.with_name("other")
    other.write_text("two")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)

    assert stamp_of_file(path) != stamp


def test_another_mode_is_another_stamp(path: Path) -> None:
    os.utime(path, ns=(0, 0))
    before = stamp_of_file(path)
    while stamp_of_file(path) == before:  # as long as the clock of the file system stands still
        path.chmod(0o640 if path.stat().st_mode & 0o777 == 0o600 else 0o600)


def test_no_file_has_no_stamp_and_a_link_has_its_own(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)

    assert stamp_of_file(path.with_name("none")) is None
    assert stamp_of_file(path / "below") is None
    assert stamp_of_file(link) not in {None, stamp_of_file(path)}
