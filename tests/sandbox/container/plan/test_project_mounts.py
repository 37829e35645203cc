"""What protects the project of a run protects it in a container, at its paths there."""

from pathlib import Path

from claude_proxy.deferred.data_classes import replace
from claude_proxy.sandbox.container.plan.project_mounts import inside
from claude_proxy.sandbox.plan.git_facts import OBJECTS, GitDirectory, GitMounts
from claude_proxy.sandbox.plan.model import GuardedMount, GuardKind, Mount, MountKind
from tests.support.container_parts import PROJECT, a_run_plan, a_sandbox

WORKSPACE = Path("/workspace")


def test_the_project_is_at_workspace_and_nothing_of_the_system_is_taken() -> None:
    found = inside(a_run_plan(), a_sandbox(), GitMounts())

    places = {mount.at: mount.kind for mount in found.mounts}
    assert places[WORKSPACE] is MountKind.WRITE
    assert places[WORKSPACE / ".mcp.json"] is MountKind.READ
    assert places[WORKSPACE / ".env"] is MountKind.BLANK
    assert Path("/usr") not in places


def test_guarded_entries_are_guarded_there() -> None:
    guarded = (GuardedMount(GuardKind.READ, PROJECT, PROJECT / ".envrc"),)
    planned = replace(a_run_plan(), guarded=guarded)

    found = inside(planned, a_sandbox(), GitMounts())

    assert found.guarded == (GuardedMount(GuardKind.READ, WORKSPACE, WORKSPACE / ".envrc"),)


def test_objects_and_repositories_elsewhere_keep_their_paths() -> None:
    host, objects = Path("/home/me/main/.git"), OBJECTS / "0/objects"
    mounts = (
        Mount(MountKind.WRITE, host, Path("/private/0")),
        Mount(MountKind.READ, objects, host / "objects"),
    )
    git = GitMounts((GitDirectory(host, Path("/private/0"), Path("/private/0.start")),))

    found = inside(a_run_plan(*mounts), a_sandbox(), git)

    assert {host, objects} <= {mount.at for mount in found.mounts}
