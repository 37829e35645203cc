"""Laws of the owner's files: one state is told from another, names lead nowhere else."""

import os
from pathlib import Path

import pytest

from claude_proxy.config.owner_files import OwnerFiles, changed, fingerprint


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

    assert fingerprint(file) == (0, 0, 0, 0) != before


def test_a_state_holds_until_the_file_changes(file: Path) -> None:
    states = {file: fingerprint(file), file.with_name("gone"): (0, 0, 0, 0)}
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

    assert files.states == {tmp_path / "presets" / "claude.yaml": (0, 0, 0, 0)}
