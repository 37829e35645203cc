"""One state of a file is told from another, and half a file from a whole one."""

import os
from pathlib import Path

import pytest

from claude_proxy.config.file_states import ABSENT, arrived_whole, changed, fingerprint


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
