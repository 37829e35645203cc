"""A record tells what a run's private directories belong to, and whether its launcher is alive."""

import fcntl
import os
from pathlib import Path

from claude_proxy.sandbox.git import record
from claude_proxy.sandbox.git.record import Progress, Record
from claude_proxy.sandbox.git.ref_moves import Known
from claude_proxy.sandbox.plan.git_facts import GitDirectory


def a_record(statedir: Path) -> Record:
    place = statedir / record.FOLDER / "r"
    one = GitDirectory(
        Path("/p/.git"), place / "0", place / "0.start", worktrees=("", "worktrees/w")
    )
    return Record("r", Path("/p"), place, (one,))


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = a_record(tmp_path)

    os.close(record.create(made))

    assert record.read(made.place) == made
    assert made.place.stat().st_mode & 0o777 == 0o700


def test_a_record_is_dead_when_its_lock_is_gone(tmp_path: Path) -> None:
    made = a_record(tmp_path)
    descriptor = record.create(made)
    assert list(record.dead(tmp_path)) == []

    os.close(descriptor)
    found = list(record.dead(tmp_path))

    assert [one for one, _ in found] == [made]
    assert list(record.dead(tmp_path)) == []  # as this process has it now
    os.close(found[0][1])


def test_what_is_no_record_is_passed_over(tmp_path: Path) -> None:
    for name, text in {"a": "", "b": "[]", "c": "{}", "d": '{"directories": 1}'}.items():
        (tmp_path / record.FOLDER / name).mkdir(parents=True)
        (tmp_path / record.FOLDER / name / "record").write_text(text)
    (tmp_path / record.FOLDER / "e").mkdir()

    assert list(record.dead(tmp_path)) == []
    assert list(record.dead(tmp_path / "none")) == []


def test_progress_is_read_as_it_was_noted(tmp_path: Path) -> None:
    one = a_record(tmp_path).directories[0]
    one.start.mkdir(parents=True)
    start = Known("refs/heads/main", {"refs/heads/main": "a"}, {"refs/heads/main": "a"})
    assert record.progress_of(one).known(start, "") == start

    record.note_progress(one, Progress({"": "refs/heads/x"}, {"refs/heads/main": "b"}))

    noted = record.progress_of(one)
    assert noted.known(start, "") == Known("refs/heads/x", start.start, {"refs/heads/main": "b"})
    assert noted.known(start, "worktrees/w").head == "refs/heads/main"


def test_one_process_at_a_time_brings_over(tmp_path: Path) -> None:

    made = a_record(tmp_path)
    os.close(record.create(made))

    with record.bringing(made.place), (made.place / "lock").open() as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = False
        except BlockingIOError:
            locked = True

    assert locked
