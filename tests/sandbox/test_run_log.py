"""A run's log is private, stays while its run is alive, and is gone when nothing is in it."""

import os
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox import run_log
from claude_proxy.sandbox.run_log import open_log


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


def test_a_log_that_cannot_be_written_is_an_error(directory: Path) -> None:
    (directory / "runs").touch()

    with pytest.raises(ConfigError, match="log of the run"):
        open_log(directory, "tried")


def test_the_directories_of_a_log_are_private_to_the_owner(directory: Path) -> None:
    statedir = directory / "state" / "claude-proxy"
    before = os.umask(0o002)
    try:
        open_log(statedir, "tried").file.close()
    finally:
        os.umask(before)

    made = (statedir.parent, statedir, statedir / "runs")
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}


def test_a_log_that_is_a_link_is_not_followed(directory: Path) -> None:
    (directory / "runs").mkdir()
    (directory / "runs" / "tried.log").symlink_to(directory / "elsewhere")

    with pytest.raises(ConfigError):
        open_log(directory, "tried")

    assert not (directory / "elsewhere").exists()


def test_an_empty_log_is_removed_when_it_is_closed(directory: Path) -> None:
    empty, full = open_log(directory, "empty"), open_log(directory, "full")
    full.file.write(b"a line\n")

    empty.close()
    full.close()

    assert not empty.path.exists()
    assert full.path.read_bytes() == b"a line\n"


def test_empty_logs_of_dead_runs_are_removed_at_the_next_start(directory: Path) -> None:
    open_log(directory, "dead").file.close()
    alive = open_log(directory, "alive")

    open_log(directory, "next").close()

    assert [path.name for path in (directory / "runs").iterdir()] == ["alive.log"]
    alive.close()


def test_a_log_that_a_helper_has_open_counts_as_one_of_a_living_run(directory: Path) -> None:
    log = open_log(directory, "orphaned")
    inherited = os.dup(log.file.fileno())
    log.file.close()

    open_log(directory, "next").close()

    assert log.path.exists()
    os.close(inherited)


def test_only_the_newest_logs_are_kept(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "_LOGS_KEPT", 2)
    for number in range(4):
        log = open_log(directory, str(number))
        log.file.write(b"a line\n")
        log.close()
        os.utime(log.path, (number, number))

    open_log(directory, "next").close()

    assert sorted(path.name for path in (directory / "runs").iterdir()) == ["2.log", "3.log"]
