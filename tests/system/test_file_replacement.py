"""Laws of file replacement: whole or not at all, one at a time, and nothing is left."""

import fcntl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from claude_proxy.system.file_replacement import LockedError, locked, replace, sweep

_ADD_LINES = """
import sys
import time
from pathlib import Path
from claude_proxy.system.file_replacement import locked, replace

path = Path(sys.argv[1])
for number in range(10):
    with locked(path):
        replace(path, path.read_bytes() + f"{sys.argv[2]}-{number}\\n".encode(), 0o600)
"""


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_changes_by_several_processes_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.touch()
    started = [
        subprocess.Popen([sys.executable, "-c", _ADD_LINES, str(path), name]) for name in "abcd"
    ]

    assert [process.wait() for process in started] == [0] * 4

    assert len(set(path.read_text().splitlines())) == 40
    assert names_in(tmp_path) == ["list"]


def test_a_file_that_is_replaced_has_the_mode_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "list"

    replace(path, b"text", 0o640)

    assert path.read_bytes() == b"text"
    assert path.stat().st_mode & 0o777 == 0o640


def test_nothing_is_left_of_a_replacement_that_fails(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()

    with pytest.raises(OSError, match="directory"):
        replace(tmp_path / "directory", b"text", 0o600)

    assert names_in(tmp_path) == ["directory"]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "list"
    (tmp_path / ".list.0123.unfinished").write_text("half")
    (tmp_path / ".other.0123.unfinished").write_text("of another file")

    with locked(path):
        replace(path, b"text", 0o600)

    assert names_in(tmp_path) == [".other.0123.unfinished", "list"]


def test_a_lock_that_is_never_released_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "list"
    pauses: list[float] = []

    with (
        locked(path),
        pytest.raises(LockedError, match="another process"),
        locked(path, pause=pauses.append),
    ):
        pass

    assert len(pauses) > 100


# --- what is found when the proxy starts


def test_a_sweep_removes_what_killed_writers_have_left(tmp_path: Path) -> None:
    (tmp_path / ".list.0123.unfinished").write_text("half")
    (tmp_path / "list").write_text("whole")

    sweep(tmp_path, time.time() + 60)

    assert names_in(tmp_path) == ["list"]


def test_a_sweep_leaves_what_is_being_written(tmp_path: Path) -> None:
    new, locked_one = tmp_path / ".a.0123.unfinished", tmp_path / ".b.0123.unfinished"
    new.touch()
    with locked_one.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        sweep(tmp_path)
        assert names_in(tmp_path) == [new.name, locked_one.name]

        sweep(tmp_path, time.time() + 60)

    assert names_in(tmp_path) == [locked_one.name]


def test_a_sweep_follows_no_link_and_needs_no_directory(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    (tmp_path / ".a.0123.unfinished").symlink_to(tmp_path / "kept")

    sweep(tmp_path, time.time() + 60)
    sweep(tmp_path / "gone")

    assert (tmp_path / "kept").read_text() == "kept"
