"""Nothing of the host's Git directories is mounted writable."""

from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.git_facts import GitDirectory, GitMounts, ObjectStore
from claude_proxy.sandbox.plan.git_mounts import cover_of
from claude_proxy.sandbox.plan.model import MountKind, SandboxPlan
from claude_proxy.sandbox.plan.planner import plan_sandbox
from tests.sandbox.boxes import HOME, PROJECT, STATEDIR, a_spec, paths, some_facts

GIT = PROJECT / ".git"
PRIVATE = STATEDIR / "repositories/r/0"
STORE = ObjectStore(GIT / "objects", has_alternates=True, lfs=GIT / "lfs")
DIRECTORY = GitDirectory(
    GIT, PRIVATE, PRIVATE.with_name("0.start"), hooks=GIT / "hooks", stores=(0,)
)


def planned(git: GitMounts) -> SandboxPlan:
    found = paths(GIT, PRIVATE, GIT / "objects", GIT / "hooks", PROJECT / "sub")
    return plan_sandbox(a_spec(), some_facts(found, git=git))


def mounted(plan: SandboxPlan) -> dict[Path, tuple[MountKind, str]]:
    return {mount.at: (mount.kind, str(mount.source)) for mount in plan.mounts}


def test_the_private_directory_is_mounted_over_the_hosts() -> None:
    found = mounted(planned(GitMounts((DIRECTORY,), stores=(STORE,))))

    assert found[GIT] == (MountKind.WRITE, str(PRIVATE))
    assert found[GIT / "hooks"] == (MountKind.READ, str(GIT / "hooks"))
    assert found[ObjectStore.inside(0)] == (MountKind.READ, str(GIT / "objects"))
    assert found[ObjectStore.inside(0).with_name("lfs")] == (MountKind.READ, str(GIT / "lfs"))
    assert found[ObjectStore.inside(0) / "info/alternates"][0] is MountKind.BLANK
    assert GIT / "config" not in found


def test_files_are_read_only_and_what_is_above_cannot_be_moved() -> None:
    file = PROJECT / "sub/.git"

    found = mounted(planned(GitMounts((DIRECTORY,), files=(file,), stores=(STORE,))))

    assert found[file] == (MountKind.READ, str(file))
    assert found[PROJECT / "sub"] == (MountKind.WRITE, str(PROJECT / "sub"))


def test_a_link_gets_a_file_that_names_its_target() -> None:
    plan = planned(GitMounts(links=((PROJECT / "sub/.git", PROJECT / "x"),)))

    assert f"gitdir: {PROJECT}/x\n".encode() in plan.files.values()
    assert cover_of(0) in mounted(plan)
    assert PROJECT / "sub" in mounted(plan)


def test_a_submodule_is_in_the_directory_above_and_has_its_own_hooks() -> None:
    part = GitDirectory(
        GIT / "modules/s", PRIVATE / "modules/s", PRIVATE, hooks=GIT / "hooks", within=True
    )

    found = mounted(planned(GitMounts((DIRECTORY, part), stores=(STORE,))))

    assert GIT / "modules/s" not in found
    assert found[GIT / "modules/s/hooks"][0] is MountKind.READ


@pytest.mark.parametrize("path", [HOME, STATEDIR / "objects", HOME / ".ssh/objects"])
def test_objects_in_a_place_that_is_never_shown_are_refused(path: Path) -> None:
    with pytest.raises(ConfigError):
        planned(GitMounts((DIRECTORY,), stores=(ObjectStore(path),)))
