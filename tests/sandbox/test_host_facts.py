"""Host facts: paths, users, versions, and bwrap itself."""

import os
import subprocess
from pathlib import Path

import pytest

from claude_proxy.sandbox import host_facts
from claude_proxy.sandbox.host_facts import numbers_in, path_info, user_of
from claude_proxy.sandbox.plan.model import PathKind
from tests.conftest import FindProgram
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


@pytest.mark.parametrize(
    "name", ["file", "link", "dangling", "none", "none/below", "file/below", "linked/file"]
)
@pytest.mark.parametrize("before", ["", "linked/", "directory/../", "linked/../linked/"])
def test_a_real_path_is_that_of_the_system(tmp_path: Path, name: str, before: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "linked").symlink_to("directory")
    for place in (tmp_path, tmp_path / "directory"):
        (place / "file").touch()
        (place / "link").symlink_to("file")
        (place / "dangling").symlink_to("none")
    path = tmp_path / f"{before}{name}"

    assert path_info(path).real == Path(os.path.realpath(path))


def test_the_root_and_what_is_in_it_are_their_own_real_paths() -> None:
    assert path_info(Path("/")).real == Path("/")
    assert path_info(Path("/none")).real == Path("/none")


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


def test_the_version_is_read_from_the_program_where_it_is_written(tmp_path: Path) -> None:
    program = tmp_path / "bwrap"
    program.write_bytes(b"\x7fELF\0bubblewrap 0.9.1\0../bubblewrap.c\0")

    assert host_facts.version_of(program) == (0, 9, 1)


@pytest.mark.parametrize("body", ["", "# \0bubblewrap 0.1\0 and \0bubblewrap 0.2\0\n"])
def test_a_program_without_one_version_in_it_is_asked(tmp_path: Path, body: str) -> None:
    program = executable(tmp_path / "bwrap", f"#!/bin/sh\n{body}echo bubblewrap 0.7.2\nexit 0\n")

    assert host_facts.version_of(program) == (0, 7, 2)


def test_this_machines_bwrap_says_what_is_written_in_it(program: FindProgram) -> None:
    bwrap = program("bwrap")
    printed = subprocess.run([bwrap, "--version"], capture_output=True, check=True, text=True)

    assert host_facts.version_of(Path(bwrap)) == numbers_in(printed.stdout)


def test_what_can_be_seen_is_missing_without_a_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_facts, "_BWRAP_PLACES", ())

    (missing,) = host_facts.missing_programs({"PATH": "/nonexistent"})

    assert missing.what == "bwrap not found"
    assert host_facts.missing_programs({"PATH": os.environ["PATH"]}) == []
