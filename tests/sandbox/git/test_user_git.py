"""Git on the user's repository runs nothing that a run may have written."""

from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.git import user_git as module
from claude_proxy.sandbox.git.user_git import user_git
from tests.sandbox.boxes import executable
from tests.sandbox.git.cloned import environ
from tests.sandbox.git.repositories import git, repository


def test_a_line_is_returned_and_a_failure_is_empty(tmp_path: Path) -> None:
    found = user_git(repository(tmp_path / "project"), environ())

    assert found.line("symbolic-ref", "HEAD") == "refs/heads/main"
    assert found.line("no-such-command") == ""
    assert found.git_directory() == tmp_path / "project/.git"
    assert user_git(tmp_path, environ()).git_directory() is None


def test_hooks_and_the_file_system_monitor_are_not_run(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    ran = tmp_path / "ran"
    trap = executable(tmp_path / "trap", f"#!/bin/sh\ntouch {ran}\n")
    executable(project / ".git/hooks/post-checkout", trap.read_text())
    git("config", "core.fsmonitor", str(trap), at=project)

    assert user_git(project, environ()).run("status").ok
    assert user_git(project, environ()).run("checkout", "-q", "-b", "other").ok
    assert not ran.exists()


def test_a_git_in_the_project_is_not_run(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    executable(project / "bin/git")

    found = user_git(project, {"PATH": f"{project}/bin:/usr/bin:/bin"})

    assert found.program != str(project / "bin/git")


def test_variables_of_git_are_not_passed_on(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")

    found = user_git(project, {**environ(), "GIT_DIR": "/nowhere", "GIT_CONFIG_COUNT": "1"})

    assert found.line("rev-parse", "--git-dir") == ".git"


def test_a_machine_without_git_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SYSTEM_PATH", str(tmp_path))

    with pytest.raises(ClaudeProxyError, match="git is not installed"):
        user_git(tmp_path, {})
