"""Mounts of a run's plan that a container has as well, at the paths that they have in it; pure.

The project is at /workspace. What is shown elsewhere, and the Git directories of a worktree that is
not in the project, keep their paths, which files in them name.
"""

from collections.abc import Iterator
from pathlib import Path

from claude_proxy.deferred.data_classes import replace
from claude_proxy.sandbox.container.plan.model import WORKSPACE
from claude_proxy.sandbox.plan.git_facts import OBJECTS, GitMounts
from claude_proxy.sandbox.plan.model import GuardedMount, SandboxPlan, SandboxSpec


def inside(planned: SandboxPlan, sandbox: SandboxSpec, git: GitMounts) -> SandboxPlan:
    """Return the part of a plan that a container has, by its paths there."""
    places = _Places(planned, sandbox, git)
    mounts = [
        replace(mount, at=at) for mount in planned.mounts if (at := places.of(mount.at)) is not None
    ]
    return replace(
        planned,
        project=Path(WORKSPACE),
        mounts=tuple(mounts),
        guarded=tuple(places.guarded()),
    )


class _Places:
    """Where paths of a run are in a container."""

    def __init__(self, planned: SandboxPlan, sandbox: SandboxSpec, git: GitMounts) -> None:
        self._planned = planned
        roots = (
            *(*sandbox.allow_ro, *sandbox.allow_rw),
            *(one.host for one in git.directories),
            OBJECTS,
        )
        # As text: a plan has hundreds of paths, and each is compared with each of these.
        self._roots = tuple(map(_prefix_of, roots))
        self._project = _prefix_of(planned.project)

    def of(self, path: Path) -> Path | None:
        """Return where a path is; None: it is not shown."""
        text = _prefix_of(path)
        if text.startswith(self._project):
            return Path(WORKSPACE) / path.relative_to(self._planned.project)
        return path if text.startswith(self._roots) else None

    def guarded(self) -> Iterator[GuardedMount]:
        """Yield what to guard in the container."""
        for mount in self._planned.guarded:
            at, base = self.of(mount.at), self.of(mount.base)
            if at is not None and base is not None:
                yield GuardedMount(mount.kind, base, at)


def _prefix_of(path: Path) -> str:
    """Return a path as text that begins those of what is in it, and of nothing beside it."""
    return f"{str(path).rstrip('/')}/"
