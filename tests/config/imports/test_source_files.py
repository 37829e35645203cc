"""Laws of files that are imported: plain ones, of a bounded size, and found where they are said."""

import os
from pathlib import Path

import pytest

from claude_proxy.config.imports import source_files
from claude_proxy.config.imports.source_files import SourceFiles
from claude_proxy.errors import ConfigError
from claude_proxy.policy.location import Location

PLACE = Location("s.conf", 3, 1)


def test_a_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x\n")

    assert source_files.read(tmp_path / "f", "file") == "x\n"


def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for name in ("pipe", ".", "gone"):
        with pytest.raises(ConfigError, match=r"not a plain file|cannot be read"):
            source_files.read(tmp_path / name, "file")
    with pytest.raises(ConfigError, match="not a plain file"):
        source_files.read(Path("/dev/zero"), "file")


def test_a_file_that_is_too_large_or_no_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_files, "MAX_BYTES", 3)
    (tmp_path / "large").write_text("four")
    (tmp_path / "odd").write_bytes(b"\xff")

    with pytest.raises(ConfigError, match="larger than"):
        source_files.read(tmp_path / "large", "file")
    with pytest.raises(ConfigError, match="UTF-8"):
        source_files.read(tmp_path / "odd", "file")


def test_paths_are_relative_to_the_file_or_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "a.conf").write_text("a")
    (tmp_path / "etc" / "b.conf").write_text("b")

    beside = SourceFiles(tmp_path / "s.conf", None)
    below = SourceFiles(tmp_path / "s.conf", tmp_path)

    assert beside.names("etc/*.conf", PLACE) == below.names("/etc/*.conf", PLACE)
    assert [below.text(name, PLACE) for name in below.names("/etc/?.conf", PLACE)] == ["a", "b"]
    assert below.names("/etc/*.none", PLACE) == []


def test_a_missing_file_is_told_with_the_line_that_names_it(tmp_path: Path) -> None:
    files = SourceFiles(tmp_path / "s.conf", None)

    with pytest.raises(ConfigError, match="gone") as caught:
        files.text(files.names("gone", PLACE)[0], PLACE)

    assert caught.value.where == "s.conf:3"
    assert "--root" in str(caught.value.fix)
