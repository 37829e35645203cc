"""The host's own Git lists its settings, and nothing is run for that."""

import os
import subprocess
from pathlib import Path

import pytest

from claude_proxy.sandbox.git_config import GitConfig

type Environ = dict[str, str]


@pytest.fixture
def environ(tmp_path: Path) -> Environ:
    home = tmp_path / "home"
    home.mkdir()
    return {"HOME": str(home), "PATH": os.environ["PATH"]}


def repository(project: Path) -> Path:
    subprocess.run(["git", "init", "-q", project], check=True)
    return project


def named(project: Path, environ: Environ) -> set[str]:
    with GitConfig(project, environ) as config:
        paths, notes = config.paths(Path(environ["HOME"]))
    assert notes == ()
    return {os.path.relpath(path, os.path.realpath(project)) for path in paths}


def configure(project: Path, key: str, value: str) -> None:
    subprocess.run(["git", "-C", project, "config", key, value], check=True)


def written(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_settings_beyond_the_first_kilobytes_count(project: Path, environ: Environ) -> None:
    config = repository(project) / ".git/config"
    padding = "".join(f'[branch "{n}"]\n\tremote = origin\n' for n in range(2000))
    config.write_text(f"{config.read_text()}{padding}[core]\n\thooksPath = .hooks\n")

    assert named(project, environ) == {".hooks"}


def test_the_users_own_settings_and_what_they_include_count(
    project: Path, environ: Environ
) -> None:
    repository(project)
    home = Path(environ["HOME"])
    written(home / ".gitconfig", "[core]\n\thooksPath = tools/hooks\n[include]\n\tpath = more\n")
    written(home / "more", '[filter "a"]\n\tclean = sh tools/clean.sh\n')
    written(project / "tools/clean.sh")

    assert named(project, environ) == {"tools/hooks", "tools/clean.sh"}


def test_an_include_of_a_file_in_the_project_counts_with_what_is_in_it(
    project: Path, environ: Environ
) -> None:
    repository(project)
    configure(project, "include.path", "../.gitconfig")
    configure(project, "includeIf.onbranch:other.path", "../.gitconfig-other")
    written(project / ".gitconfig", "[core]\n\tfsmonitor = scripts/monitor\n")
    written(project / "scripts/monitor")

    assert named(project, environ) == {".gitconfig", ".gitconfig-other", "scripts/monitor"}


def test_settings_from_the_environment_count(project: Path, environ: Environ) -> None:
    repository(project)
    given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.hooksPath"}

    assert named(project, {**environ, **given, "GIT_CONFIG_VALUE_0": "hooks"}) == {"hooks"}


def test_a_part_of_a_repository_has_its_settings(project: Path, environ: Environ) -> None:
    repository(project)
    configure(project, "core.hooksPath", "part/hooks")
    (project / "part").mkdir()

    assert named(project / "part", environ) == {"hooks"}


def test_the_settings_of_a_submodule_name_paths_of_its_own(project: Path, environ: Environ) -> None:
    module = repository(project) / ".git/modules/a"
    subprocess.run(["git", "init", "-q", "--bare", module], check=True)
    written(module / "config", "[core]\n\tworktree = ../../../sub/a\n\thooksPath = hooks\n")

    with GitConfig(project, environ) as config:
        paths, _ = config.paths(Path(environ["HOME"]), [project / ".git", module])

    assert paths == (project / "sub/a/hooks",)


def test_a_repository_within_a_project_without_one_counts(project: Path, environ: Environ) -> None:
    configure(repository(project / "sub"), "core.hooksPath", "hooks")

    with GitConfig(project, environ) as config:
        paths, _ = config.paths(Path(environ["HOME"]), [project / "sub/.git"])

    assert paths == (project / "sub/hooks",)


def test_the_git_directory_itself_is_left_to_others(project: Path, environ: Environ) -> None:
    repository(project)
    configure(project, "core.hooksPath", ".git/other-hooks")

    assert named(project, environ) == set()


def test_paths_outside_of_the_project_are_left_out(project: Path, environ: Environ) -> None:
    repository(project)
    configure(project, "core.hooksPath", "../hooks")
    configure(project, "core.fsmonitor", str(written(project.parent / "monitor")))

    assert named(project, environ) == set()


def test_a_project_that_is_reached_by_a_link_is_the_same(
    project: Path, environ: Environ, tmp_path: Path
) -> None:
    repository(project)
    link = tmp_path / "link"
    link.symlink_to(project)
    configure(project, "core.hooksPath", f"{link}/hooks")

    assert named(link, environ) == {"hooks"}


def test_nothing_is_run_for_the_listing(project: Path, environ: Environ) -> None:
    repository(project)
    monitor = written(project / "monitor", f"#!/bin/sh\ntouch {project}/ran\n")
    monitor.chmod(0o755)
    for key in ("core.fsmonitor", "core.pager", "alias.config", "core.editor"):
        configure(project, key, f"!{monitor}" if key.startswith("alias") else str(monitor))

    assert named(project, environ) == {"monitor"}
    assert not (project / "ran").exists()


def test_a_git_of_the_project_is_not_run(project: Path, environ: Environ) -> None:
    repository(project)
    fake = written(project / "bin/git", f"#!/bin/sh\ntouch {project}/ran\n")
    fake.chmod(0o755)

    named(project, {**environ, "PATH": f"{project}/bin:{environ['PATH']}"})

    assert not (project / "ran").exists()


def test_settings_that_cannot_be_read_are_a_note(project: Path, environ: Environ) -> None:
    (repository(project) / ".git/config").write_text("[broken\n")

    with GitConfig(project, environ) as config:
        paths, (note,) = config.paths(Path(environ["HOME"]))

    assert paths == ()
    assert note.startswith("git cannot list its settings in ")


def test_without_a_repository_or_a_project_nothing_is_asked(
    project: Path, environ: Environ
) -> None:
    for place in (project, None):
        with GitConfig(place, environ) as config:
            assert config.paths(Path(environ["HOME"])) == ((), ())


def test_a_listing_that_nobody_asks_for_is_ended(project: Path, environ: Environ) -> None:
    with GitConfig(repository(project), environ):
        pass
