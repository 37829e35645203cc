"""A clone is shown at the project's path, and nothing of the project itself anywhere."""

from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.model import (
    Mount,
    MountKind,
    PathInfo,
    PathKind,
    ProjectClone,
    SandboxPlan,
)
from claude_proxy.sandbox.plan.planner import plan_sandbox
from tests.sandbox.boxes import HOME, PROJECT, STATEDIR, Paths, a_spec, paths, some_facts

PLACE = STATEDIR / "clones/first"
CLONE = ProjectClone(PLACE / "tree", PLACE / "git")


def a_plan(found: Paths | None = None, **changes: object) -> SandboxPlan:
    found = paths() if found is None else found
    for path in (CLONE.tree, CLONE.git):
        found[path] = PathInfo(PathKind.DIRECTORY, path)
    return plan_sandbox(a_spec(clone=CLONE, **changes), some_facts(found))


def mounts_at(plan: SandboxPlan, *places: Path) -> list[Mount]:
    return [mount for mount in plan.mounts if mount.at in places]


def test_the_clone_is_at_the_path_of_the_project() -> None:
    assert mounts_at(a_plan(), PROJECT, PROJECT / ".git") == [
        Mount(MountKind.WRITE, PROJECT, CLONE.tree),
        Mount(MountKind.WRITE, PROJECT / ".git", CLONE.git),
    ]


def test_nothing_of_the_project_is_mounted_or_compared() -> None:
    found = paths(PROJECT / ".vscode", PROJECT / ".git", PROJECT / ".git/hooks")

    plan = a_plan(found)

    sources = [Path(str(mount.source)) for mount in plan.mounts if mount.shows]
    assert not [source for source in sources if source.is_relative_to(PROJECT)]
    assert not [path for path in plan.watched if path.is_relative_to(PROJECT)]
    assert not plan.watched_trees


@pytest.mark.parametrize("option", ["allow_ro", "allow_rw", "show_home"])
@pytest.mark.parametrize("path", [PROJECT, PROJECT / "data", PROJECT / ".git"])
def test_a_path_of_the_project_is_refused(option: str, path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing of the project itself"):
        a_plan(paths(PROJECT / "data", PROJECT / ".git"), **{option: (path,)})


def test_a_link_that_shows_what_contains_the_project_is_refused() -> None:
    source, link = HOME / "src", HOME / "elsewhere"
    project = source / "p"
    found = paths(source, project, links={link: source})
    for path in (CLONE.tree, CLONE.git):
        found[path] = PathInfo(PathKind.DIRECTORY, path)

    with pytest.raises(ConfigError, match="nothing of the project itself") as refused:
        plan_sandbox(a_spec(clone=CLONE, project=project, allow_ro=(link,)), some_facts(found))

    assert refused.value.where == str(link / "p")


def test_what_the_owner_hides_is_hidden_in_the_clone() -> None:
    secrets = CLONE.tree / "secrets"

    plan = a_plan(paths(secrets), hide=("secrets",))

    assert plan.masked == (PROJECT / "secrets",)
    assert [mount.kind for mount in mounts_at(plan, PROJECT / "secrets")] == [MountKind.EMPTY]


def test_what_the_owner_makes_read_only_is_so_in_the_clone() -> None:
    makefile = CLONE.tree / "Makefile"

    plan = a_plan(paths(files=[makefile]), read_only=("Makefile",))

    assert mounts_at(plan, PROJECT / "Makefile") == [
        Mount(MountKind.READ, PROJECT / "Makefile", makefile)
    ]


def test_a_link_out_of_the_clone_hides_nothing_elsewhere() -> None:
    found = paths(links={CLONE.tree / "secrets": HOME})

    assert not a_plan(found, hide=("secrets",)).masked
