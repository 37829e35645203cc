"""LFS objects come over if their content is what their name says."""

import hashlib
from pathlib import Path

import pytest

from claude_proxy.sandbox.git.lfs_objects import bring_lfs_objects

NAME = hashlib.sha256(b"content").hexdigest()
PLACE = f"lfs/objects/{NAME[:2]}/{NAME[2:4]}/{NAME}"


def put(private: Path, content: bytes) -> Path:
    path = private / PLACE
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def private(tmp_path: Path) -> Path:
    directory = tmp_path / "private"
    directory.mkdir()
    return directory


def test_an_object_is_copied_once(private: Path, tmp_path: Path) -> None:
    put(private, b"content")

    assert bring_lfs_objects(private, tmp_path) == []
    assert bring_lfs_objects(private, tmp_path) == []

    assert (tmp_path / PLACE).read_bytes() == b"content"
    assert [path.name for path in (tmp_path / PLACE).parent.iterdir()] == [NAME]


def test_another_content_is_not_taken(private: Path, tmp_path: Path) -> None:
    put(private, b"other")

    assert len(bring_lfs_objects(private, tmp_path)) == 1
    assert not list((tmp_path / PLACE).parent.iterdir())


@pytest.mark.parametrize("part", [PLACE, "lfs/objects", "lfs"])
def test_links_are_not_followed(private: Path, tmp_path: Path, part: str) -> None:
    put(private, b"content")
    (private / part).rename(tmp_path / "moved")
    (private / part).symlink_to(tmp_path / "moved")

    bring_lfs_objects(private, tmp_path)

    assert not (tmp_path / PLACE).exists()


def test_a_repository_without_lfs_gets_no_directory(private: Path, tmp_path: Path) -> None:
    assert bring_lfs_objects(private, tmp_path) == []
    assert not (tmp_path / "lfs").exists()
