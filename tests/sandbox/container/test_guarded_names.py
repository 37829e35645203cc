"""What tools of the host obey in a project is found, and no link is taken for it."""

import os
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.guarded_names import guarded_in, refuse_project


def test_files_that_are_there_are_found(tmp_path: Path) -> None:
    (tmp_path / ".git/hooks").mkdir(parents=True)
    (tmp_path / ".git/config").touch()
    (tmp_path / ".envrc").touch()
    (tmp_path / ".vscode").mkdir()
    (tmp_path / "main.py").touch()

    assert set(guarded_in(tmp_path)) == {".git/hooks", ".git/config", ".envrc", ".vscode"}


def test_a_link_is_not_mounted(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/config").touch()
    (tmp_path / ".git").symlink_to("elsewhere")
    (tmp_path / ".envrc").symlink_to("elsewhere/config")

    assert guarded_in(tmp_path) == ()


def test_a_worktrees_file_has_nothing_below_it(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /elsewhere\n")

    assert guarded_in(tmp_path) == ()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("/", "system directory"),
        ("/usr", "system directory"),
        ("/var/lib", "system directory"),
        ("{home}", "whole home"),
        ("{home}/..", "whole home"),
        ("{home}/.ssh", "never shown"),
        ("{home}/.ssh/below", "never shown"),
        ("{home}/.config", "never shown"),
        ("{home}/.config/claude-proxy", "never shown"),
        ("{home}/link", "whole home"),
    ],
)
def test_a_project_that_would_show_secrets_is_refused(
    place: str, message: str, tmp_path: Path
) -> None:
    home = tmp_path / "above/home"
    home.mkdir(parents=True)
    (home / "link").symlink_to(home)
    directory = Path(os.path.normpath(place.format(home=home)))

    with pytest.raises(ConfigError, match=message):
        refuse_project(directory, {}, home, home / ".config/claude-proxy", home / ".state")


def test_a_project_in_the_home_is_taken(tmp_path: Path) -> None:
    refuse_project(tmp_path / "src/project", {}, tmp_path, tmp_path / ".config/claude-proxy")
