"""Nothing behind a symbolic link, and nothing but plain files, is read."""

import os
import stat
from pathlib import Path

import pytest

from claude_proxy.sandbox.git.no_links import file_in, kind_of, names_in, root_of, text_in


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/f").write_text("text")
    (tmp_path / "d/link").symlink_to("e")
    (tmp_path / "d/e/link").symlink_to("f")
    os.mkfifo(tmp_path / "d/pipe")
    return tmp_path


def test_plain_files_are_read(tree: Path) -> None:
    with root_of(tree) as root:
        assert text_in(root, "d/e/f", 10) == "text"
        assert names_in(root, "d/e") == ["f", "link"]
        assert kind_of(root, "d/e") == stat.S_IFDIR


@pytest.mark.parametrize("name", ["d/link/f", "d/e/link", "d/pipe", "d", "none", "d/e/f/x"])
def test_anything_else_is_empty(tree: Path, name: str) -> None:
    with root_of(tree) as root:
        assert text_in(root, name, 10) == ""
        with pytest.raises(OSError), file_in(root, name):  # noqa: PT011 - one of several
            pass


def test_a_file_that_is_too_large_is_empty(tree: Path) -> None:
    with root_of(tree) as root:
        assert text_in(root, "d/e/f", 3) == ""


def test_a_link_is_no_root(tree: Path) -> None:
    with pytest.raises(OSError), root_of(tree / "d/link"):  # noqa: PT011 - by system
        pass


def test_no_descriptor_stays_open(tree: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    with root_of(tree) as root:
        for name in ("d/e/f", "d/link/f", "none/none", "d/pipe"):
            text_in(root, name, 10)
            kind_of(root, name)

    assert len(list(Path("/proc/self/fd").iterdir())) == before
