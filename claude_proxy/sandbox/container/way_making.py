"""Choice and making of the way into one container: its plan for that way, and the keeper's task.

Law kept: no quiet downgrade: the way is chosen before anything is made, and is the one that the
plan names; a container that was made for one way is never started by another.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container import holder_image, lent_python
from claude_proxy.sandbox.container.lent_python import LentPython
from claude_proxy.sandbox.container.network_holder import SOCKET_NAME
from claude_proxy.sandbox.container.plan import way_choice, way_plans
from claude_proxy.sandbox.container.plan.model import (
    ContainerMount,
    ContainerPlan,
    EngineFacts,
    EngineKind,
    ImageFacts,
    Way,
)
from claude_proxy.sandbox.container.plan.way_plans import KEEPER_INSIDE, HolderContent
from claude_proxy.sandbox.container.ways_in import HOLDER_DIRECTORY, WAY_OUT_DIRECTORY, WayTask

_NOBODY = "65534:65534"


@dataclass(frozen=True, slots=True)
class WayMaker:
    """What the way of one container depends on."""

    facts: EngineFacts
    image: ImageFacts
    statedir: Path
    has_gateway: bool
    dry: bool = False  # nothing is made
    transparent: bool = False  # names have fake addresses
    forwards: bool = False  # a port inside leads outside
    publishes: bool = False  # programs of this machine reach servers inside

    def way(self, asked: Way | None) -> Way:
        """Return the way that is asked for, or the best one; ConfigError if there is none."""
        way = way_choice.choose(
            self.facts, asked, can_wait=holder_image.can_wait(os.uname().machine)
        )
        for option, is_wanted, ways in (
            ("--gateway", self.has_gateway, (Way.ENTER, Way.PAUSE)),
            ("--forward", self.forwards, (Way.ENTER, Way.PAUSE)),
            ("--publish", self.publishes, (Way.ENTER,)),
        ):
            if is_wanted and way not in ways:
                raise ConfigError(
                    f"there is no {option} with the way {way}",
                    where=f"{option}, {self.facts.kind}",
                    fix=f"leave it out, or use an engine with the way {' or '.join(ways)}",
                )
        if self.transparent and not (way is Way.ENTER and self.facts.kind is EngineKind.PODMAN):
            raise ConfigError(
                "only podman, with the way enter, gives names addresses in a container",
                where=f"--transparent on, {self.facts.kind}, the way {way}",
                fix="leave it out, or use --engine podman --way enter",
            )
        return way

    def plan(self, plan: ContainerPlan, asked: Way | None) -> tuple[ContainerPlan, WayTask | None]:
        """Return the plan for the way, and what the keeper sets up; None: the engine's hook."""
        way = self.way(asked)
        if way is Way.INSIDE:
            return self._with_relay(plan), WayTask(way)
        if way is Way.ENTER and self.facts.kind is EngineKind.PODMAN:
            return replace(plan, way=way), None
        holder = way_plans.holder(plan, self.facts, self._content(plan, way))
        return way_plans.joined(plan, holder, way=way), WayTask(way, holder)

    def again(self, plan: ContainerPlan, way: Way) -> WayTask | None:
        """Return what a keeper sets up for a container that runs, and has lost its own.

        None: its network is entered from outside.
        """
        if way is Way.ENTER:
            return None
        if way is Way.INSIDE:
            return WayTask(way)
        content, network = self._content(plan, way), f"container:{plan.name}"
        found = way_plans.holder(plan, self.facts, content, network=network)
        return WayTask(way, found)

    def _content(self, plan: ContainerPlan, way: Way) -> HolderContent:
        if way is Way.ENTER:
            # By its second word the process is known for that of this container.
            waiting = (holder_image.PROGRAM, _mark_of(plan))
            return HolderContent(holder_image.WAITING_IMAGE, waiting, _NOBODY)
        lent = self._lent()
        keeper = ContainerMount(KEEPER_INSIDE, plan.directory / HOLDER_DIRECTORY)
        words = lent.words("namespace_holder", str(KEEPER_INSIDE / SOCKET_NAME))
        mounts = (_mount_of(lent), keeper)
        return HolderContent(holder_image.EMPTY_IMAGE, words, _NOBODY, mounts)

    def _with_relay(self, plan: ContainerPlan) -> ContainerPlan:
        lent = self._lent()
        return way_plans.with_relay(
            plan,
            self.image,
            relay=lent.words("container_init"),
            lent=_mount_of(lent),
            way_out=plan.directory / WAY_OUT_DIRECTORY,
        )

    def _lent(self) -> LentPython:
        lend: Callable[[Path], LentPython] = lent_python.planned if self.dry else lent_python.lend
        return lend(self.statedir)


def _mount_of(lent: LentPython) -> ContainerMount:
    return ContainerMount(lent_python.INSIDE, lent.directory)


def _mark_of(plan: ContainerPlan) -> str:
    return hashlib.sha256(os.fsencode(plan.directory)).hexdigest()[:16]
