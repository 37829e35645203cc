"""Files are written below one directory, and nowhere else."""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container.files.model import RenderedFile
from claude_proxy.sandbox.container.project_files import FileChange, compared, write

FILE = RenderedFile(PurePosixPath(".github/actions/x/action.yml"), "new\n")
OWN = RenderedFile(PurePosixPath("allowlist.yaml"), "new\n", own=True)


def test_a_file_is_new_then_unchanged_then_different(tmp_path: Path) -> None:
    assert [row.change for row in compared(tmp_path, [FILE])] == [FileChange.NEW]

    write(tmp_path, [FILE])
    (same,) = compared(tmp_path, [FILE])
    (tmp_path / FILE.path).write_text("old\n")
    (different,) = compared(tmp_path, [FILE])

    assert same.change is FileChange.SAME
    assert different.change is FileChange.DIFFERENT
    assert list(different.diff())[2:] == ["@@ -1 +1 @@", "-old", "+new"]


def test_a_file_of_its_owners_is_kept(tmp_path: Path) -> None:
    (tmp_path / "allowlist.yaml").write_text("mine\n")

    assert [row.change for row in compared(tmp_path, [OWN])] == [FileChange.KEPT]


def test_a_replaced_file_keeps_its_mode_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path, [FILE])
    path = tmp_path / FILE.path
    path.chmod(0o640)

    write(tmp_path, [RenderedFile(FILE.path, "newer\n")])

    assert (path.read_text(), path.stat().st_mode & 0o777) == ("newer\n", 0o640)
    assert [entry.name for entry in path.parent.iterdir()] == ["action.yml"]


def link_to_a_directory(place: Path, outside: Path) -> None:
    (place / ".github").symlink_to(outside)


def link_to_a_file(place: Path, outside: Path) -> None:
    (place / FILE.path).parent.mkdir(parents=True)
    (place / FILE.path).symlink_to(outside / "action.yml")


def link_in_the_middle(place: Path, outside: Path) -> None:
    (place / ".github/actions").mkdir(parents=True)
    (place / ".github/actions/x").symlink_to(outside)


def link_that_leads_nowhere(place: Path, outside: Path) -> None:
    (place / FILE.path).parent.mkdir(parents=True)
    (place / FILE.path).symlink_to(outside / "nothing")


def pipe(place: Path, _: Path) -> None:
    (place / FILE.path).parent.mkdir(parents=True)
    os.mkfifo(place / FILE.path)


def directory(place: Path, _: Path) -> None:
    (place / FILE.path).mkdir(parents=True)


TRAPS = (
    link_to_a_directory,
    link_to_a_file,
    link_in_the_middle,
    link_that_leads_nowhere,
    pipe,
    directory,
)


@pytest.mark.parametrize("trap", TRAPS)
def test_no_link_is_followed_and_only_a_file_is_replaced(
    tmp_path: Path, trap: Callable[[Path, Path], None]
) -> None:
    place, outside = tmp_path / "place", tmp_path / "outside"
    place.mkdir()
    outside.mkdir()
    (outside / "action.yml").write_text("theirs\n")
    trap(place, outside)

    with pytest.raises(ConfigError, match="cannot be replaced"):
        compared(place, [FILE])

    assert (outside / "action.yml").read_text() == "theirs\n"
    assert [entry.name for entry in outside.iterdir()] == ["action.yml"]


@pytest.mark.parametrize("trap", [link_to_a_directory, link_in_the_middle, directory])
def test_a_link_that_comes_in_between_is_not_followed_either(
    tmp_path: Path, trap: Callable[[Path, Path], None]
) -> None:
    place, outside = tmp_path / "place", tmp_path / "outside"
    place.mkdir()
    outside.mkdir()
    trap(place, outside)

    with pytest.raises(ClaudeProxyError, match="cannot be written"):
        write(place, [FILE])

    assert [entry.name for entry in outside.iterdir()] == []


def test_a_directory_that_cannot_be_entered_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClaudeProxyError, match="cannot be written"):
        write(tmp_path / "gone", [FILE])
