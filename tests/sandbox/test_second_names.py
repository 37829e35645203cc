"""A protected file that has a second name is refused before anything runs."""

import os
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.second_names import refuse_second_names


def linked(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    os.link(path, path.with_name(f"{path.name}.other"))
    return path


def test_a_file_with_one_name_is_fine(project: Path) -> None:
    (project / ".envrc").touch()

    assert refuse_second_names([project / ".envrc", project / "missing"]) == ()


def test_a_file_with_a_second_name_is_refused_with_a_fix(project: Path) -> None:
    file = linked(project / ".en vrc")

    with pytest.raises(ConfigError) as raised:
        refuse_second_names([file])

    assert raised.value.where == str(file)
    assert f"cp -p '{file}' '{file}'.new" in (raised.value.fix or "")


def test_a_file_in_a_protected_directory_counts(project: Path) -> None:
    linked(project / ".vscode/a/b/tasks.json")

    with pytest.raises(ConfigError):
        refuse_second_names([project / ".vscode"])


def test_dependencies_are_left_out_because_package_managers_link_them(project: Path) -> None:
    linked(project / "node_modules/a/index.js")
    linked(project / "kept/node_modules/a/index.js")

    assert refuse_second_names([project / "node_modules", project / "kept"]) == ()


def test_links_are_not_followed(project: Path, tmp_path: Path) -> None:
    linked(tmp_path / "elsewhere/file")
    (project / ".vscode").mkdir()
    (project / ".vscode/away").symlink_to(tmp_path / "elsewhere")
    (project / ".zed").symlink_to(tmp_path / "elsewhere")

    assert refuse_second_names([project / ".vscode", project / ".zed"]) == ()


def test_a_search_that_was_cut_short_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claude_proxy.sandbox.second_names._MOST_ENTRIES", 3)
    for number in range(9):
        (project / str(number)).touch()

    (note,) = refuse_second_names([project])

    assert note.startswith(f"{project} has too many files")
