"""Objects and complete packs are copied, and no other file of a Git directory."""

from pathlib import Path

import pytest

from claude_proxy.sandbox.git import object_files
from claude_proxy.sandbox.git.object_files import Copied, copy_objects

LOOSE, PACK = "ab/" + "c" * 38, "pack/pack-" + "d" * 40


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in (LOOSE, f"{PACK}.pack", f"{PACK}.idx", "info/alternates", "pack/tmp_pack", "ab/x"):
        path = tmp_path / "git/objects" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "to/pack").mkdir(parents=True)
    return tmp_path


def copied(source: Path) -> set[str]:
    target = source / "to"
    return {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}


def test_only_objects_and_packs_are_copied(source: Path) -> None:
    found = copy_objects(source / "git", source / "to")

    assert copied(source) == {LOOSE, f"{PACK}.pack"}
    assert found.packs == [source / "to" / f"{PACK}.pack"]
    assert not found.problem


def test_what_is_there_is_not_copied_again(source: Path) -> None:
    copy_objects(source / "git", source / "to")

    again = copy_objects(source / "git", source / "to")

    assert (again.loose, again.packs) == (0, [])


def test_a_pack_without_an_index_is_not_complete(source: Path) -> None:
    (source / f"git/objects/{PACK}.idx").unlink()

    copy_objects(source / "git", source / "to")

    assert copied(source) == {LOOSE}


@pytest.mark.parametrize("name", [LOOSE, "ab", "pack"])
def test_links_are_not_followed(source: Path, name: str) -> None:
    path = source / "git/objects" / name
    path.rename(source / "moved")
    path.symlink_to(source / "moved")

    copy_objects(source / "git", source / "to")

    assert not any(found.startswith(name) for found in copied(source))


def test_objects_that_are_a_link_are_a_problem(source: Path) -> None:
    (source / "git/objects").rename(source / "moved")
    (source / "git/objects").symlink_to(source / "moved")

    assert copy_objects(source / "git", source / "to").problem


@pytest.mark.parametrize("limits", [Copied(bytes_left=5), Copied(files_left=1)])
def test_what_exceeds_the_limit_is_a_problem(
    source: Path, monkeypatch: pytest.MonkeyPatch, limits: Copied
) -> None:
    monkeypatch.setattr(object_files, "Copied", lambda: limits)

    assert copy_objects(source / "git", source / "to").problem
    assert "ab/copying" not in copied(source)
