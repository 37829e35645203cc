"""Clone of a container: made or continued before each start, held while it runs, kept after it.

It is known by the container's name, so every start of a container works in the same clone. Laws
kept: no quiet downgrade: if the clone cannot be made, nothing is run. Nothing is lost: the end or
removal of a container leaves its clone, and says what it holds.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import run_clone
from claude_proxy.sandbox.container.plan.model import ContainerSpec
from claude_proxy.sandbox.container.store import StoredContainer
from claude_proxy.sandbox.git import clones
from claude_proxy.sandbox.git.clones import Clone
from claude_proxy.sandbox.run_spec import RunSpec

type Reporter = Callable[[str], None]

_PATIENCE_S = 2.0  # for helpers of a keeper that was killed, which end by themselves
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class HeldClone:
    """The clone that a container works in, held by this process and by those that it forks."""

    spec: ContainerSpec  # with the clone, if there is to be one
    hold: ExitStack

    def leave(self) -> None:
        """Leave it to the keeper, which holds it until its own end."""
        self.hold.close()


@contextmanager
def held(
    spec: ContainerSpec, owner: tuple[int, int], say: Reporter, *, again: bool = False
) -> Iterator[HeldClone]:
    """Lend the clone of a container; one that was made for a container that failed is removed.

    `owner` is the user of the container, and `again` whether it had a clone before. Raises
    ClaudeProxyError.
    """
    if not spec.run.clone:
        yield HeldClone(spec, ExitStack())
        return
    statedir = spec.run.settings.statedir
    before = clones.find(statedir, spec.name)
    if before is not None:
        _wait_until_free(before)
    elif again:
        say(f"note: the clone {spec.name} was removed; a new one is made")
    with ExitStack() as hold:
        run_spec = _prepared(spec, owner, hold, say)
        try:
            yield HeldClone(replace(spec, run=run_spec), hold)
        except ClaudeProxyError:
            hold.close()
            if before is None:
                run_clone.discard_unworked(statedir, spec.name)
            raise


def as_planned(spec: ContainerSpec) -> ContainerSpec:
    """Return the specification with the paths that the clone has, or would have."""
    if not spec.run.clone or spec.run.sandbox.clone is not None:
        return spec
    return replace(spec, run=run_clone.as_planned(replace(spec.run, name=spec.name)))


def report(statedir: Path, stored: StoredContainer, say: Reporter) -> None:
    """Say what the clone of a container holds, if it has one, and how to take it."""
    if stored.clone and clones.find(statedir, stored.name) is not None:
        run_clone.report_left(statedir, stored.name, say, who=f"the container {stored.name}")


def _prepared(
    spec: ContainerSpec, owner: tuple[int, int], hold: ExitStack, say: Reporter
) -> RunSpec:
    with ExitStack() as starting:
        run_spec = run_clone.prepare(spec.run, spec.name, hold, starting, say)
        _give(clones.named(spec.run.settings.statedir, spec.name), owner)
        starting.pop_all()
    return run_spec


def _wait_until_free(clone: Clone) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while clones.is_in_use(clone) and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)


def _give(clone: Clone, owner: tuple[int, int]) -> None:
    """Make a clone the property of the container's user, where root serves another one."""
    try:
        for part in (clone.tree, clone.git):
            if os.geteuid() == 0 and _owner_of(part) != owner:
                _give_all(part, owner)
    except OSError as error:
        raise ConfigError(
            "the clone cannot be given to the user of the container: "
            f"{(error.strerror or type(error).__name__).lower()}",
            where=str(clone.path),
            fix="keep the clones on a file system with owners: --statedir",
        ) from error


def _owner_of(path: Path) -> tuple[int, int]:
    seen = path.stat(follow_symlinks=False)
    return seen.st_uid, seen.st_gid


def _give_all(place: Path, owner: tuple[int, int]) -> None:
    """Change the owner of all that is in a directory, and then its own: by this it is seen."""
    for _, names, files, directory in os.fwalk(place, follow_symlinks=False):
        for name in (*names, *files):
            os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
    os.chown(place, *owner, follow_symlinks=False)
