"""A clone is kept until its owner removes it, and removed whatever an agent left in it."""

import os
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.git import clones
from claude_proxy.sandbox.git.clones import CloneRecord

RECORD = CloneRecord("/project", "main", None, 1.0, {"refs/heads/main": "a" * 40}, ("pack-1",))


def make(statedir: Path, name: str = "one", record: CloneRecord = RECORD) -> clones.Clone:
    with clones.new_directory(statedir, name) as path:
        clones.write_record(path, record)
    return clones.named(statedir, name)


def left(statedir: Path) -> list[str]:
    return sorted(path.name for path in clones.directory_in(statedir).iterdir())


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert make(tmp_path).record == RECORD


def test_clones_are_listed_by_age(tmp_path: Path) -> None:
    for name, created in (("b", 2.0), ("a", 3.0), ("c", 1.0)):
        make(tmp_path, name, CloneRecord("/project", "main", None, created))

    assert [clone.name for clone in clones.all_in(tmp_path)] == ["c", "b", "a"]
    assert clones.all_in(tmp_path / "nowhere") == []


@pytest.mark.parametrize("name", ["other", "../one", "", ".new-1", "a/b"])
def test_a_name_that_no_clone_has_is_an_error(tmp_path: Path, name: str) -> None:
    make(tmp_path)

    with pytest.raises(ClaudeProxyError, match="there is no clone called"):
        clones.named(tmp_path, name)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"project": 1', "\0"])
def test_a_damaged_record_is_no_clone(tmp_path: Path, text: str) -> None:
    (make(tmp_path).path / "record.json").write_text(text)

    assert clones.find(tmp_path, "one") is None


def test_a_clone_that_cannot_be_completed_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with clones.new_directory(tmp_path, "one") as path:
            (path / "tree").mkdir()
            raise ValueError("full")

    with pytest.raises(ValueError, match="full"):
        fail()

    assert left(tmp_path) == []


def test_a_clone_never_replaces_another(tmp_path: Path) -> None:
    make(tmp_path)

    with pytest.raises(ClaudeProxyError, match="cannot be kept"):
        make(tmp_path, record=CloneRecord("/other", "main", None, 2.0))

    assert clones.named(tmp_path, "one").record == RECORD


def test_what_a_killed_start_left_is_removed_by_the_next(tmp_path: Path) -> None:
    make(tmp_path)
    unfinished = clones.directory_in(tmp_path) / ".new-0123"
    (unfinished / "tree").mkdir(parents=True)

    make(tmp_path, "two")

    assert left(tmp_path) == ["one", "two"]


def test_what_another_start_is_making_stays(tmp_path: Path) -> None:
    with clones.new_directory(tmp_path, "one") as path:
        make(tmp_path, "two")

        assert path.is_dir()


def test_a_clone_that_a_run_holds_is_not_removed(tmp_path: Path) -> None:
    clone = make(tmp_path)

    with clones.locked(clone.path):
        assert clones.is_in_use(clone)
        with pytest.raises(ClaudeProxyError, match="a run is working"):
            clones.remove(clone)

    assert not clones.is_in_use(clone)
    clones.remove(clone)
    assert left(tmp_path) == []


def test_a_link_in_a_clone_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    clone = make(tmp_path)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    clone.tree.mkdir()
    (clone.tree / "link").symlink_to(kept)

    clones.remove(clone)

    assert (kept / "file").exists()


def test_a_tree_of_any_depth_and_mode_is_removed(tmp_path: Path) -> None:
    clone = make(tmp_path)
    here = os.open(clone.path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.mkdir("closed", 0o000, dir_fd=here)
    os.fchmod(here, 0o500)
    os.close(here)

    clones.remove(clone)

    assert left(tmp_path) == []


def test_the_size_counts_files_and_follows_no_link(tmp_path: Path) -> None:
    clone = make(tmp_path)
    big = tmp_path / "big"
    big.write_bytes(bytes(4_000_000))
    (clone.path / "link").symlink_to(big)
    (clone.path / "file").write_bytes(bytes(100_000))

    assert 100_000 <= clones.size_of(clone.path) < 1_000_000
