"""Paths that cannot exist are told by one listing of the project, and by nothing less."""

from pathlib import Path

from claude_proxy.sandbox.missing_paths import missing_in


def test_a_path_whose_first_directory_is_not_there_is_missing(project: Path) -> None:
    paths = [project / ".zed", project / ".cargo/config.toml"]

    assert missing_in(project, paths).keys() == set(paths)


def test_a_path_below_something_that_exists_is_left_to_a_closer_look(project: Path) -> None:
    (project / ".cargo").mkdir()
    (project / ".Envrc").touch()
    (project / ".zed").symlink_to("nowhere")

    paths = [project / name for name in (".cargo/config.toml", ".envrc", ".zed", "a/../.cargo")]

    assert missing_in(project, paths) == {}


def test_paths_elsewhere_are_left_out(project: Path) -> None:
    assert missing_in(project, [project, project.parent, Path("/nonexistent")]) == {}


def test_the_real_path_of_a_missing_one_has_no_link_in_it(project: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(project)

    assert missing_in(link, [link / ".zed"])[link / ".zed"].real == project.resolve() / ".zed"


def test_a_project_that_cannot_be_listed_proves_nothing(tmp_path: Path) -> None:
    assert missing_in(tmp_path / "gone", [tmp_path / "gone/.zed"]) == {}


def test_below_a_file_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert set(missing_in(tmp_path / "file", [tmp_path / "file/.zed"])) == {tmp_path / "file/.zed"}
