"""What is committed in a container's own Git directory comes over, and nothing of it is left."""

import os
import subprocess
from pathlib import Path

import pytest

from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container import container_repositories
from tests.support.container_parts import a_sandbox

IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@b.test")


def git(directory: Path, *words: str, at: Path | None = None) -> str:
    place = () if at is None else ("--git-dir", str(at), "--work-tree", str(directory))
    done = subprocess.run(
        ["git", *IDENTITY, "-C", str(directory), *place, *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    project.mkdir()
    git(project, "init", "--quiet", "--initial-branch=main")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "outside")
    return project


def test_commits_come_over_at_the_end(project: Path, tmp_path: Path) -> None:
    directory, sandbox = tmp_path / "state/containers/web", replace(a_sandbox(), project=project)
    directory.mkdir(parents=True)
    found = container_repositories.found_in(sandbox, directory)
    container_repositories.make(found, sandbox, directory, (os.getuid(), os.getgid()))
    private = found.directories[0].private
    (private / "objects/info/alternates").write_text(f"{project / '.git/objects'}\n")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "inside", at=private)
    assert "inside" not in git(project, "log", "--format=%s")

    container_repositories.finish(directory, tmp_path / "state", lambda _: None)

    assert git(project, "log", "--format=%s").split() == ["inside", "outside"]
    assert not private.exists()
    assert "@start" not in git(project, "for-each-ref", "refs/claude-proxy")


def test_a_link_called_git_is_refused(project: Path, tmp_path: Path) -> None:
    (project / ".git").rename(tmp_path / "elsewhere")
    (project / ".git").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigError, match="symbolic link"):
        container_repositories.found_in(replace(a_sandbox(), project=project), tmp_path / "web")


def test_a_container_that_had_none_has_nothing_to_bring_over(tmp_path: Path) -> None:
    container_repositories.finish(tmp_path / "web", tmp_path, pytest.fail)
