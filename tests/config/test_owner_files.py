"""Laws of the owner's files: what was read is known, names lead nowhere else."""

from pathlib import Path

import pytest

from claude_proxy.config.file_states import ABSENT, digest
from claude_proxy.config.owner_files import OwnerFiles


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "allowlist.yaml"
    file.write_text("allow: [example.com]\n")
    return file


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
