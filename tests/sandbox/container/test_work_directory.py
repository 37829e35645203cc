"""Working directories go with their work; what a kill has left goes with the next one."""

from pathlib import Path

import pytest

from claude_proxy.sandbox.container.work_directory import DIRECTORY, work_directory


def nothing(_: Path) -> None:
    pass


def test_a_directory_is_the_owners_and_goes_with_its_work(tmp_path: Path) -> None:
    with work_directory(tmp_path, "build", nothing) as work:
        assert work.path.stat().st_mode & 0o777 == 0o700
        (work.path / "root").mkdir()

    assert not work.path.exists()


def test_a_log_stays(tmp_path: Path) -> None:
    with work_directory(tmp_path, "build", nothing) as work:
        work.keep_log(b"one\n")
        work.keep_log(b"two\n")

    assert work.log.read_text() == "one\ntwo\n"
    assert work.log.stat().st_mode & 0o777 == 0o600


def test_dead_works_are_removed_and_living_ones_are_not(tmp_path: Path) -> None:
    dead = tmp_path / DIRECTORY / "update-dead"
    dead.mkdir(parents=True)
    (dead / "file").write_text("x")
    (dead / "link").symlink_to("/etc")
    removed: list[Path] = []

    with (
        work_directory(tmp_path, "build", removed.append) as first,
        work_directory(tmp_path, "update", removed.append) as second,
    ):
        assert first.path.is_dir()
        assert second.path.is_dir()

    assert removed == [dead]
    assert not dead.exists()
    assert Path("/etc/passwd").exists()


def test_a_link_is_no_work(tmp_path: Path) -> None:
    target = tmp_path / "other"
    target.mkdir()
    (tmp_path / DIRECTORY).mkdir()
    (tmp_path / DIRECTORY / "build-link").symlink_to(target)

    with work_directory(tmp_path, "build", lambda _: pytest.fail("it was taken for one")):
        pass

    assert target.is_dir()


def test_only_the_newest_logs_stay(tmp_path: Path) -> None:
    for _ in range(14):
        with work_directory(tmp_path, "build", nothing) as work:
            work.keep_log(b"x")

    assert len([*(tmp_path / DIRECTORY).glob("*.log")]) <= 11
