"""Laws of the owner's files: one state is told from another, names lead nowhere else."""

import os
from pathlib import Path

import pytest

from claude_proxy.config.owner_files import (
    ABSENT,
    OwnerFiles,
    arrived_whole,
    changed,
    digest,
    fingerprint,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "allowlist.yaml"
    file.write_text("allow: [example.com]\n")
    return file


def test_a_changed_file_is_told_from_what_it_was(file: Path) -> None:
    before = fingerprint(file)

    file.write_text("allow: []\n")

    assert fingerprint(file) != before


def test_a_replaced_file_is_told_from_what_it_was(file: Path) -> None:
    before = fingerprint(file)
    text, times = file.read_text(), file.stat()
    new = file.with_name("new")
    new.write_text(text)
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))

    new.replace(file)

    assert fingerprint(file) != before


def test_a_file_that_is_gone_has_a_state_of_its_own(file: Path) -> None:
    before = fingerprint(file)

    file.unlink()

    assert fingerprint(file) == ABSENT != before


def test_a_state_holds_until_the_file_changes(file: Path) -> None:
    states = {file: fingerprint(file), file.with_name("gone"): ABSENT}
    assert not changed(states)

    file.with_name("gone").touch()

    assert changed(states)


def test_names_of_files_are_found_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "presets").mkdir()
    for name in ("b.yaml", "a.yaml", "C.yaml", "note.txt", ".hidden.yaml"):
        (tmp_path / "presets" / name).touch()

    assert OwnerFiles(tmp_path).own_names("presets") == ("a", "b")
    assert OwnerFiles(tmp_path).own_names("policies") == ()


@pytest.mark.parametrize("name", ["../x", "a/b", "", "A", "/etc/passwd"])
def test_a_name_that_is_a_path_is_no_preset(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.yaml").write_text("allow: []\n")

    with pytest.raises(KeyError):
        OwnerFiles(tmp_path).preset(name)


def test_a_missing_file_of_the_owners_is_remembered_as_missing(tmp_path: Path) -> None:
    files = OwnerFiles(tmp_path)

    assert files.preset("claude").startswith("#")

    assert files.states == {tmp_path / "presets" / "claude.yaml": ABSENT}


# --- whether a file is whole

BEFORE = (1, 2, 30, 100, 100)


@pytest.mark.parametrize(
    ("now", "whole"),
    [
        ((1, 3, 40, 200, 201), True),
        ((1, 3, 40, 200, 200), False),
        ((1, 2, 40, 200, 201), False),
        (BEFORE, False),
        (ABSENT, False),
    ],
    ids=["renamed", "a new file that is written", "written in place", "the same", "gone"],
)
def test_only_another_file_that_was_renamed_arrives_whole(
    now: tuple[int, ...], *, whole: bool
) -> None:
    assert arrived_whole(BEFORE, now) is whole


def test_a_file_with_other_times_is_told_from_what_it_was_by_its_change_time(file: Path) -> None:
    before, times = fingerprint(file), file.stat()
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert fingerprint(file)[:4] == before[:4]
    assert fingerprint(file)[4] >= before[4]


def test_what_was_read_is_kept_as_a_digest(file: Path) -> None:
    files = OwnerFiles(file.parent)
    file.chmod(0o600)

    files.read(file, "allowlist", "")

    assert files.digests == {file: digest(file)}
    assert digest(file.with_name("gone")) is None


@pytest.mark.parametrize(
    ("text", "blank"),
    [("", True), ("\n \n# allow: [a.test]\n", True), ("# a\nallow: []\n", False)],
)
def test_a_file_without_a_statement_is_blank(file: Path, text: str, *, blank: bool) -> None:
    files = OwnerFiles(file.parent)
    file.write_text(text)
    file.chmod(0o600)

    files.read(file, "allowlist", "")

    assert (file in files.blank) is blank
