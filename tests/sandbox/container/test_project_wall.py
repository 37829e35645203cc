"""What is mounted is compared with what was planned, and a container without its guard ends."""

import os
import signal
import subprocess
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import project_wall
from claude_proxy.sandbox.container.project_wall import ProjectWall
from claude_proxy.sandbox.container.walled_project import walled, walled_again
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.plan.model import (
    GuardedMount,
    GuardKind,
    Mount,
    MountKind,
    SandboxPlan,
)
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import open_log
from tests.support.container_parts import a_run_plan, a_sandbox


def planned(project: Path) -> SandboxPlan:
    mounts = (Mount(MountKind.WRITE, project, project),)
    return replace(a_run_plan(), project=project, mounts=mounts)


def test_a_process_that_does_not_have_the_mounts_is_refused(tmp_path: Path) -> None:
    sandbox = a_sandbox(project=tmp_path)
    project = walled(planned(tmp_path), sandbox, GitMounts(), tmp_path / "web", tmp_path)

    with pytest.raises(ClaudeProxyError, match="has not mounted what was planned"):
        ProjectWall(project, pytest.fail).check(os.getpid())
    project.abandon(pytest.fail)


def test_what_programs_outside_obey_and_was_made_inside_is_named(tmp_path: Path) -> None:
    plan = replace(planned(tmp_path), watched=(tmp_path / ".envrc",))
    said: list[str] = []
    project = walled_again(plan, a_sandbox(project=tmp_path), GitMounts(), tmp_path, tmp_path)
    wall = ProjectWall(project, said.append)
    wall.look()
    (tmp_path / ".envrc").write_text("evil\n")

    wall.end()

    assert [".envrc" in line for line in said] == [True]


def test_a_process_that_ended_before_it_was_compared_is_an_error_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = a_sandbox(project=tmp_path)
    project = walled(planned(tmp_path), sandbox, GitMounts(), tmp_path / "web", tmp_path)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    # It ends after its mounts were read, and before its namespace is opened.
    monkeypatch.setattr(project_wall, "_root_of", lambda *_: Path("/"))

    assert not project_wall.is_alive(child)
    with pytest.raises(ClaudeProxyError, match="mounts cannot be compared: no such file"):
        ProjectWall(project, pytest.fail).check(child)
    project.abandon(pytest.fail)


def test_a_container_that_does_not_get_its_root_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project_wall, "_MOUNTED_PATIENCE_S", 0.0)
    guarded = (GuardedMount(GuardKind.READ, tmp_path, tmp_path / ".envrc"),)
    plan = replace(planned(tmp_path), guarded=guarded)
    project = walled_again(plan, a_sandbox(project=tmp_path), GitMounts(), tmp_path, tmp_path)
    wall = ProjectWall(project, pytest.fail)
    command = subprocess.Popen(["sleep", "60"])

    with ExitStack() as stack:
        above = stack.enter_context(tempfile.TemporaryDirectory())  # short, for a socket
        directory = stack.enter_context(RunDirectory.make(("sleep",), above=Path(above)))
        log = stack.enter_context(closing(open_log(tmp_path, directory.name)))
        with pytest.raises(ClaudeProxyError, match="does not get its root"):
            wall.begin(command.pid, directory, log, stack)

    assert command.wait() == -signal.SIGKILL
