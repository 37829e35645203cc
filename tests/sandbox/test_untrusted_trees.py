"""A directory that a run has written is measured and removed, whatever the run has made of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.sandbox import untrusted_trees
from claude_proxy.sandbox.untrusted_trees import remove_tree, size_of


@pytest.fixture
def above(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_a_tree_without_permissions_is_removed(tmp_path: Path, above: int) -> None:
    inner = tmp_path / "tree/one/two"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    for path in (inner, inner.parent, tmp_path / "tree"):
        path.chmod(0)

    remove_tree("tree", above)

    assert list(tmp_path.iterdir()) == []


def test_a_tree_that_is_deeper_than_a_path_can_say_is_removed(tmp_path: Path, above: int) -> None:
    (tmp_path / "tree").mkdir()
    at = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)

    remove_tree("tree", above)

    assert list(tmp_path.iterdir()) == []


def test_what_a_link_leads_to_is_not_removed(tmp_path: Path, above: int) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(outside)

    remove_tree("tree", above)

    assert (outside / "kept").exists()
    assert not (tmp_path / "tree").exists()


def test_a_tree_that_is_a_link_is_not_followed(tmp_path: Path, above: int) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").touch()
    (tmp_path / "tree").symlink_to("outside")

    with pytest.raises(OSError, match="tree"):
        remove_tree("tree", above)

    assert (tmp_path / "outside/kept").exists()


def test_a_tree_that_is_gone_is_no_error(above: int) -> None:
    remove_tree("none", above)


def test_the_size_is_that_of_the_files_and_not_of_what_links_lead_to(
    tmp_path: Path, above: int
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/file").write_bytes(bytes(100_000))
    (tmp_path / "link").symlink_to("/usr")

    found = size_of(above)

    assert found.complete
    assert 100_000 <= found.size < 400_000


def test_a_tree_too_large_to_measure_is_said_to_be(
    tmp_path: Path, above: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted_trees, "_MOST_ENTRIES", 3)
    for name in "abcde":
        (tmp_path / name).touch()

    assert not size_of(above).complete
