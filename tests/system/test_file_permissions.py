"""Every link and directory that decides where a path leads is found."""

import os
from pathlib import Path

import pytest

from claude_proxy.system.file_permissions import resolution_steps


def steps(path: Path, above: Path) -> list[str]:
    return [str(at.relative_to(above)) for at in resolution_steps(path)]


def test_a_file_leads_to_itself(tmp_path: Path) -> None:
    assert steps(tmp_path / "a" / "file", tmp_path.resolve()) == ["a/file"]


def test_each_link_on_the_way_is_named_and_where_they_lead(tmp_path: Path) -> None:
    above = tmp_path.resolve()
    (above / "deep").mkdir()
    (above / "deep" / "file").touch()
    (above / "second").symlink_to("deep")
    (above / "first").symlink_to(above / "second")

    assert steps(above / "first" / "file", above) == ["first", "second", "deep/file"]


def test_a_directory_that_is_left_again_counts_by_what_holds_it(tmp_path: Path) -> None:
    above = tmp_path.resolve()

    assert steps(above / "a" / "b" / ".." / "file", above) == ["a", "a/file"]


@pytest.mark.parametrize("text", ["loop", "loop/file", "first/../file", "gone/../file"])
def test_resolving_stops_at_the_kernels_limit_of_links(tmp_path: Path, text: str) -> None:
    above = tmp_path.resolve()
    (above / "loop").symlink_to("loop")
    (above / "deep").mkdir()
    (above / "deep" / "inner").mkdir()
    (above / "first").symlink_to("deep/inner")

    *_, last = resolution_steps(above / text)

    if not text.startswith("loop"):
        assert str(last) == os.path.realpath(above / text)
    assert last.is_relative_to(above)
