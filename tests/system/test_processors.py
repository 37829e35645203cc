"""Usable processors: no more than the control group of the process may use."""

import os
from pathlib import Path

import pytest

from claude_proxy.system import processors


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lend an empty tree of control groups to a process that may run on eight processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "own").write_text("0::/user/app\n")
    (tmp_path / "groups" / "user" / "app").mkdir(parents=True)
    return tmp_path / "groups"


def usable(groups: Path) -> int:
    return processors.usable(groups.parent / "own", groups)


def test_without_a_quota_all_processors_of_the_process_are_usable(groups: Path) -> None:
    (groups / "user" / "app" / "cpu.max").write_text("max 100000\n")

    assert usable(groups) == 8


def test_a_quota_bounds_them(groups: Path) -> None:
    (groups / "user" / "app" / "cpu.max").write_text("250000 100000\n")

    assert usable(groups) == 2


def test_the_quota_of_a_group_above_counts_too(groups: Path) -> None:
    (groups / "user" / "cpu.max").write_text("300000 100000\n")
    (groups / "user" / "app" / "cpu.max").write_text("600000 100000\n")

    assert usable(groups) == 3


def test_less_than_one_processor_is_one(groups: Path) -> None:
    (groups / "user" / "cpu.max").write_text("50000 100000\n")

    assert usable(groups) == 1


@pytest.mark.parametrize("text", ["", "nonsense", "1 0", "max", "1 2 3"])
def test_what_is_no_quota_bounds_nothing(groups: Path, text: str) -> None:
    (groups / "user" / "app" / "cpu.max").write_text(text)

    assert usable(groups) == 8


@pytest.mark.parametrize("text", ["", "4:cpu:/user\n"])
def test_groups_of_the_first_version_bound_nothing(groups: Path, text: str) -> None:
    (groups.parent / "own").write_text(text)
    (groups / "cpu.max").write_text("100000 100000\n")

    assert usable(groups) == 8


def test_a_system_without_control_groups_has_its_processors(tmp_path: Path) -> None:
    assert processors.usable(tmp_path / "none", tmp_path / "none") >= 1
