"""A file that is being written is not read; one that arrived by rename is read at once."""

import math
from pathlib import Path

import pytest

from claude_proxy.config.file_states import ABSENT, Fingerprint
from claude_proxy.server.settling import Settling

FILE, OTHER = Path("allowlist.yaml"), Path("more.yaml")
BEFORE: Fingerprint = (1, 1, 100, 5, 5)
KNOWN = {FILE: BEFORE, OTHER: BEFORE}


def written(at: int) -> Fingerprint:
    return (1, 1, 50, at, at)


def renamed(inode: int = 2) -> Fingerprint:
    return (1, inode, 50, 7, 8)


class Watch:
    """One set of files, looked at again and again."""

    def __init__(self) -> None:
        self.open: set[Path] = set()
        self.settling = Settling(self.open.__contains__)

    def at(self, now: float, **seen: Fingerprint) -> float | None:
        states = {FILE: seen.get("file", BEFORE), OTHER: seen.get("other", BEFORE)}
        return self.settling.rest_s(now, KNOWN, states)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_what_has_not_changed_needs_no_rest(watch: Watch) -> None:
    assert watch.at(0) is None


def test_a_file_that_arrives_by_rename_needs_no_rest(watch: Watch) -> None:
    assert watch.at(0, file=renamed()) == math.inf


def test_a_new_file_whose_rename_does_not_show_needs_little_rest(watch: Watch) -> None:
    new = (1, 2, 50, 7, 7)

    assert [watch.at(now, file=new) for now in (10, 10.4, 10.5)] == [
        0,
        pytest.approx(0.4),
        math.inf,
    ]


def test_a_renamed_file_that_somebody_still_writes_rests(watch: Watch) -> None:
    watch.open.add(FILE)

    assert watch.at(0, file=renamed()) == 0


@pytest.mark.parametrize("state", [written(6), ABSENT], ids=["written", "gone"])
def test_a_file_that_changes_otherwise_rests_from_then_on(watch: Watch, state: Fingerprint) -> None:
    assert [watch.at(now, file=state) for now in (10, 11, 12)] == [0, 1, 2]


def test_every_change_begins_the_rest_anew(watch: Watch) -> None:
    watch.at(10, file=written(6))

    assert watch.at(11, file=written(7)) == 0
    assert watch.at(12, file=written(7), other=written(7)) == 0
    assert watch.at(13, file=written(7), other=written(7)) == 1


def test_one_file_in_place_makes_a_renamed_one_wait(watch: Watch) -> None:
    assert watch.at(10, file=renamed(), other=written(6)) == 0


def test_a_change_that_was_taken_back_is_none(watch: Watch) -> None:
    watch.at(10, file=written(6))

    assert watch.at(11) is None
    assert watch.at(12, file=written(6)) == 0


def test_a_file_that_is_open_for_writing_does_not_rest(watch: Watch) -> None:
    watch.open.add(FILE)
    watch.at(10, file=written(6))
    assert watch.at(20, file=written(6)) == 0

    watch.open.clear()

    assert watch.at(21, file=written(6)) == 1


def test_a_file_that_is_kept_open_for_good_rests_at_last(watch: Watch) -> None:
    watch.open.add(FILE)
    watch.at(10, file=written(6))
    watch.at(69, file=written(6))

    assert watch.at(72, file=written(6)) == 3


def test_files_that_never_rest_are_told_of_once_a_minute(watch: Watch) -> None:
    told = []
    for second in range(10, 200):
        watch.at(second, file=written(second))
        told.append(watch.settling.has_changed_for_long(second))

    assert [at for at, each in enumerate(told) if each] == [60, 120, 180]
    watch.at(200)
    assert not watch.settling.has_changed_for_long(400)
