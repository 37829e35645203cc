"""Host facts: paths, users, versions, and bwrap itself."""

import os
from pathlib import Path

import pytest

from claude_proxy.sandbox import host_facts
from claude_proxy.sandbox.host_facts import numbers_in, path_info, user_of
from claude_proxy.sandbox.plan.model import PathKind
from tests.sandbox.boxes import Box, executable


def test_a_path_is_seen_with_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("none")
    os.mkfifo(tmp_path / "pipe")

    assert path_info(tmp_path).kind is PathKind.DIRECTORY
    assert path_info(tmp_path / "file").kind is PathKind.FILE
    assert path_info(tmp_path / "link").real == tmp_path / "file"
    assert path_info(tmp_path / "link").link == "file"
    assert path_info(tmp_path / "dangling").kind is PathKind.MISSING
    assert path_info(tmp_path / "file/below").kind is PathKind.MISSING
    assert path_info(tmp_path / "pipe").kind is PathKind.OTHER


def test_a_cycle_of_links_exists_and_has_no_target(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    assert path_info(tmp_path / "a").kind is PathKind.OTHER


def test_the_home_is_that_of_the_environment() -> None:
    assert user_of({"HOME": "/data/ann/"}).home == Path("/data/ann")
    assert user_of({"HOME": "relative"}).home.is_absolute()
    assert user_of({}).uid == os.geteuid()


def test_this_machine_lacks_nothing(box: Box) -> None:
    assert host_facts.problems({"PATH": os.environ["PATH"]}) == []
    assert box.sh("true").code == 0


def test_bwrap_is_never_taken_from_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_facts, "_BWRAP_PLACES", ())
    executable(project / "bin/bwrap")

    assert host_facts.find_bwrap({"PATH": f"{project}/bin"}, project) is None


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("bubblewrap 0.11.1\n", (0, 11, 1)), ("bubblewrap 1", (1,)), ("", ()), ("none", ())],
)
def test_a_version_is_read_as_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert numbers_in(text) == numbers
