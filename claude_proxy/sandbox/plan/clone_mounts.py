"""Clone mounts: a clone at the path of the project that it is a clone of; pure.

Law kept: of the project itself nothing is shown, neither at its own path nor at another. What the
owner's `.claude-proxy.yaml` hides or makes read-only is so in a clone, too.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.model import (
    Mount,
    MountKind,
    PathInfo,
    PathKind,
    ProjectClone,
    SandboxSpec,
)
from claude_proxy.sandbox.plan.mount_layout import Layout


def paths_to_inspect(spec: SandboxSpec) -> frozenset[Path]:
    """Return the paths of the clone that the planner needs to know; none without a clone."""
    if spec.clone is None:
        return frozenset()
    names = (*spec.hide, *spec.read_only)
    return frozenset({spec.clone.tree, spec.clone.git, *(spec.clone.tree / name for name in names)})


def add(layout: Layout, project: Path, clone: ProjectClone) -> None:
    """Show the clone at the project's path."""
    layout.put(Mount(MountKind.WRITE, project, clone.tree))
    # A mount of its own, so that git outside finds it where it was put, whatever happens inside.
    layout.put(Mount(MountKind.WRITE, project / ".git", clone.git))


def paths_in(
    spec: SandboxSpec, known: Mapping[Path, PathInfo], names: Iterable[str]
) -> Iterator[tuple[Path, PathInfo]]:
    """Yield what exists in the clone of some paths: relative, without links; none if no clone."""
    if spec.clone is None:
        return
    tree = known[spec.clone.tree].real
    for name in names:
        seen = known[spec.clone.tree / name]
        # A link of the agent's that leads out of the clone leads nowhere inside.
        if seen.kind is not PathKind.MISSING and seen.real.is_relative_to(tree):
            yield seen.real.relative_to(tree), seen


def refuse_shown_project(
    spec: SandboxSpec,
    known: Mapping[Path, PathInfo],
    mounts: Iterable[Mount],
    places: Iterable[Path],
) -> None:
    """Refuse a plan that shows the project besides its clone; `places` are where it would be."""
    if spec.clone is None:
        return
    project = known[spec.project].real
    # Where the clone replaces what an option names, the option asks for something else.
    options = (*spec.allow_ro, *spec.allow_rw, *spec.show_home)
    named = (path for path in options if known[path].real.is_relative_to(project))
    below = (
        mount.at
        for mount in mounts
        if mount.shows and Path(str(mount.source)).is_relative_to(project)
    )
    for at in (*named, *places, *below):
        raise ConfigError(
            "with --clone nothing of the project itself is shown, and this path would show it",
            where=str(at),
            fix="leave out what names it: --allow-ro, --allow-rw, --show-home, or a profile's path",
        )
