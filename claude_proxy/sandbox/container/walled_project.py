"""Project of one container as it was planned, with what it shows held open until it is compared.

The launcher's part of the wall, without the programs that the keeper's part is made of
(`project_wall`): those are imported while the engine starts. Law kept: nothing is shown that is not
where it was judged.
"""

from collections.abc import Callable
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox.bubblewrap.mount_sources import MountSources
from claude_proxy.sandbox.container import container_repositories
from claude_proxy.sandbox.container.plan import project_mounts
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.plan.model import SandboxPlan, SandboxSpec

type Reporter = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class WalledProject:
    """The project of one container, as it was planned."""

    planned: SandboxPlan  # by paths of the host
    inside: SandboxPlan  # by those of the container
    git: GitMounts
    sources: MountSources | None  # what is shown, held until it is compared; None: it runs already
    directory: Path  # of the container
    statedir: Path

    def abandon(self, say: Reporter) -> None:
        """Undo what was made for a container that was not started."""
        if self.sources is not None:
            self.sources.close()
        container_repositories.finish(self.directory, self.statedir, say)


def walled(  # noqa: PLR0913 - what is known of it
    planned: SandboxPlan,
    sandbox: SandboxSpec,
    git: GitMounts,
    directory: Path,
    statedir: Path,
    inside: SandboxPlan | None = None,
) -> WalledProject:
    """Return the project of a container that starts, with what it shows held open.

    `inside` is what `project_mounts` says, if that is known. ClaudeProxyError if something is not
    where it was judged.
    """
    inside = inside or project_mounts.inside(planned, sandbox, git)
    expected = None if git.covers(planned.project) else sandbox.project_id
    sources = MountSources.opened(inside, expected)
    return WalledProject(planned, inside, git, sources, directory, statedir)


def walled_again(
    planned: SandboxPlan, sandbox: SandboxSpec, git: GitMounts, directory: Path, statedir: Path
) -> WalledProject:
    """Return the project of a container that runs, and has lost its keeper."""
    inside = project_mounts.inside(planned, sandbox, git)
    return WalledProject(planned, inside, git, None, directory, statedir)
