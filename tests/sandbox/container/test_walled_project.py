"""What a container shows of its project is opened where it was judged, or not at all."""

from pathlib import Path

import pytest

from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container.walled_project import walled, walled_again
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.plan.model import Mount, MountKind, SandboxPlan
from tests.support.container_parts import a_run_plan, a_sandbox


def planned(project: Path) -> SandboxPlan:
    mounts = (Mount(MountKind.WRITE, project, project),)
    return replace(a_run_plan(), project=project, mounts=mounts)


def test_what_is_not_where_it_was_judged_is_refused(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (tmp_path / "other").mkdir()
    project.symlink_to(tmp_path / "other")

    with pytest.raises(ClaudeProxyError, match="replaced or removed"):
        walled(planned(project), a_sandbox(project=project), GitMounts(), tmp_path, tmp_path)


def test_a_container_that_runs_holds_nothing_open(tmp_path: Path) -> None:
    sandbox = a_sandbox(project=tmp_path)

    project = walled_again(planned(tmp_path), sandbox, GitMounts(), tmp_path / "web", tmp_path)

    assert project.sources is None
    assert [str(mount.at) for mount in project.inside.mounts] == ["/workspace"]
