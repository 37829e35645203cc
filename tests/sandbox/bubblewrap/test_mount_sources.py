"""A sandbox shows the files that its plan was judged by, whatever another run swaps meanwhile."""

from collections.abc import Callable
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import host_facts
from claude_proxy.sandbox.bubblewrap.mount_sources import MountSources, file_id
from claude_proxy.sandbox.plan.model import SandboxPlan
from tests.sandbox.boxes import Box, held

SWAPPED = "replaced or removed while the run started; nothing was run"


def link_to_ssh(box: Box, path: Path) -> None:
    """Do what a run can do in whose project `path` is."""
    path.rename(path.with_name("moved away"))
    path.symlink_to(box.home / ".ssh", target_is_directory=True)


def put_back(path: Path) -> None:
    path.unlink()
    path.with_name("moved away").rename(path)


def new_directory(_: Box, path: Path) -> None:
    path.rename(path.with_name("moved away"))
    path.mkdir()


def nothing(_: Box, path: Path) -> None:
    path.rename(path.with_name("moved away"))


def a_plan(box: Box) -> SandboxPlan:
    (box.project / ".vscode").mkdir(exist_ok=True)
    return box.plan(box.spec("/bin/true"))


@pytest.mark.parametrize("change", [link_to_ssh, new_directory, nothing])
@pytest.mark.parametrize("place", [".", ".vscode"])
def test_what_is_replaced_after_the_plan_is_refused(
    box: Box, change: Callable[[Box, Path], None], place: str
) -> None:
    project = file_id(box.project)
    planned = a_plan(box)
    change(box, box.project / place)

    # A directory is that of the plan if it is at the same path, unless it is the project's own.
    if place == "." or change is not new_directory:
        with pytest.raises(ClaudeProxyError, match=SWAPPED):
            MountSources.opened(planned, project)


@pytest.mark.parametrize("change", [link_to_ssh, new_directory])
def test_another_project_that_bwrap_has_mounted_is_refused(
    box: Box, change: Callable[[Box, Path], None]
) -> None:
    planned = box.plan(box.spec("/bin/true"))
    sources = MountSources.opened(planned)
    change(box, box.project)

    with held(planned) as pid:
        host_facts.check_mounts(planned, pid)
        with pytest.raises(ClaudeProxyError, match=SWAPPED):
            sources.check(pid)


def test_a_project_that_was_swapped_back_after_the_mount_is_refused(box: Box) -> None:
    planned = box.plan(box.spec("/bin/true"))
    sources = MountSources.opened(planned)
    link_to_ssh(box, box.project)

    with held(planned) as pid:
        host_facts.check_mounts(planned, pid)
        put_back(box.project)
        with pytest.raises(ClaudeProxyError, match=SWAPPED) as caught:
            sources.check(pid)

    assert str(box.project) in str(caught.value.where)


def test_a_sandbox_that_shows_what_was_planned_is_accepted(box: Box) -> None:
    planned = a_plan(box)
    sources = MountSources.opened(planned, file_id(box.project))

    with held(planned) as pid:
        host_facts.check_mounts(planned, pid)
        sources.check(pid)


def test_a_project_on_a_link_is_the_directory_that_the_link_meant(box: Box) -> None:
    link = box.home / "link"
    link.symlink_to(box.project)
    planned = box.plan(box.spec("/bin/true", project=link))
    meant = file_id(link)
    link.unlink()
    link.symlink_to(box.home / "other")

    MountSources.opened(planned, meant).close()
    with pytest.raises(ClaudeProxyError, match=SWAPPED):
        MountSources.opened(planned, file_id(link))
