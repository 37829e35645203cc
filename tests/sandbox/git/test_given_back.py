"""What root wrote becomes the owner's: no file of another name, and nothing behind a link."""

import os
from pathlib import Path

import pytest

from claude_proxy.sandbox.git import given_back

SOMEBODY = 1000

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for another user")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    (project / "below").mkdir(parents=True)
    os.chown(project, SOMEBODY, SOMEBODY)
    (project / "below" / "new").touch()
    (project / "other").touch()
    return project


def owner_of(path: Path) -> int:
    return path.lstat().st_uid


def test_the_named_files_and_the_directories_above_them_are_given(project: Path) -> None:
    (project / "link").symlink_to("other")

    given_back.files(project, ["below/new", "link", "gone"])

    given = [project / "below", project / "below" / "new", project / "link"]
    assert [owner_of(path) for path in given] == [SOMEBODY] * 3
    assert owner_of(project / "other") == 0


def test_neither_a_second_name_nor_what_is_behind_a_link_is_given(project: Path) -> None:
    outside = project.parent / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    (project / "away").symlink_to(outside)
    (project / "second").hardlink_to(outside / "secret")

    given_back.files(project, ["away/secret", "second"])
    given_back.repository(project)

    assert (owner_of(outside), owner_of(outside / "secret")) == (0, 0)


def test_all_that_root_wrote_in_a_repository_is_given(project: Path) -> None:
    given_back.repository(project)

    assert {owner_of(path) for path in project.rglob("*")} == {SOMEBODY}
