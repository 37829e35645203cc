"""The kernel knows whether a file is still being written."""

import sys
from pathlib import Path

import pytest

from claude_proxy.system import open_writers
from claude_proxy.system.open_writers import is_open_for_writing


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has leases")
def test_a_file_is_open_for_writing_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("w") as file:
        file.write("half")
        file.flush()
        during = is_open_for_writing(path)

    assert (during, is_open_for_writing(path)) == (True, False)


def test_a_reader_is_no_writer(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("whole")

    with path.open():
        assert not is_open_for_writing(path)


def test_a_file_that_is_gone_is_not_open(tmp_path: Path) -> None:
    assert not is_open_for_writing(tmp_path / "gone")


def test_a_system_without_leases_knows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_writers, "_SETLEASE", None)

    with (tmp_path / "file").open("w"):
        assert not is_open_for_writing(tmp_path / "file")
