"""Git runs nothing that a repository names, and a failure is an answer."""

from pathlib import Path

import pytest

from claude_proxy.sandbox.git import host_git
from claude_proxy.sandbox.git.host_git import Answer, HostGit
from tests.sandbox.git.repositories import git, repository


def test_no_hook_and_no_alias_of_the_repository_runs(tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree")
    hook = tree / ".git/hooks/reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    git("config", "core.fsmonitor", f"touch {tmp_path}/ran", at=tree)

    answer = HostGit(tree / ".git").run(
        "update-ref", "refs/heads/x", git("rev-parse", "@", at=tree)
    )

    assert answer.ok
    assert not (tmp_path / "ran").exists()


def test_variables_of_the_caller_have_no_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = repository(tmp_path / "tree")
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "bad")

    assert HostGit(tree / ".git").run("rev-parse", "HEAD").ok


def test_a_failure_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = HostGit(tmp_path).run("rev-parse", "HEAD")
    assert (missing.ok, bool(missing.reason)) == (False, True)

    monkeypatch.setattr(host_git, "find_git", lambda: None)
    assert "not installed" in HostGit(tmp_path).run("version").reason
    monkeypatch.setattr(host_git, "find_git", lambda: str(tmp_path / "none"))
    assert "cannot be started" in HostGit(tmp_path).run("version").reason


def test_a_command_that_takes_too_long_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec sleep 100\n")
    slow.chmod(0o755)
    monkeypatch.setattr(host_git, "find_git", lambda: str(slow))

    assert "longer" in HostGit(tmp_path).run("version", patience_s=0.01).reason


def test_a_reason_is_safe_to_print() -> None:
    assert Answer(1, b"", "fatal: a\x1b[31mb\n").reason == "a?[31mb"
    assert Answer(3, b"", "").reason == "exit 3"
