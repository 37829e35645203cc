"""Containers that the commands of `container` are about: named ones, or the one that is meant.

Law kept: nothing is guessed. A container that claude-proxy did not make is never touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from claude_proxy.cli.container_options import complete_names, engine_of
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container import container_choice, keeper_link, launcher, store
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.plan.model import ContainerState, ContainerStatus
from claude_proxy.sandbox.container.store import StoredContainer


class NoneRunsError(ClaudeProxyError):
    """There are several containers, and none of them runs."""


@dataclass(frozen=True, slots=True)
class RunningContainer:
    """A container that runs."""

    stored: StoredContainer
    engine: Engine
    state: ContainerState
    directory: Path

    @property
    def has_keeper(self) -> bool:
        """Whether somebody keeps its proxy."""
        return keeper_link.ask(self.directory, "status") is not None


def optional_name(function: Any) -> Any:
    """Add the argument that may name a container."""
    return click.argument("name", required=False, metavar="[NAME]", shell_complete=complete_names)(
        function
    )


def several_names(function: Any) -> Any:
    """Add the argument that may name containers."""
    return click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_names)(
        function
    )


def meant(statedir: Path, name: str | None, *, running: bool) -> StoredContainer:
    """Return the container of a name, or the one that is meant; ClaudeProxyError if unclear."""
    if name is not None:
        return store.load(statedir, name)
    found = list(store.load_all(statedir))
    if running and len(found) > 1:
        stopped, found = found, [one for one in found if runs(one)]
        if not found:
            raise NoneRunsError(
                "no container runs, and NAME was left out",
                where=f"stopped: {', '.join(one.name for one in stopped)}",
                fix="start one: claude-proxy container start NAME",
            )
    what = "running container" if running else "container"
    return container_choice.choose(found, _here(), what=what)


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return Path("/")


def runs(stored: StoredContainer) -> bool:
    """Tell whether a container runs; one that cannot be asked about does not."""
    try:
        state = engine_of(stored).inspect(stored.name)
    except ClaudeProxyError:
        return False
    return state is not None and state.status is ContainerStatus.RUNNING


def running(statedir: Path, name: str | None) -> RunningContainer:
    """Return the running container that is meant; ClaudeProxyError if it does not run."""
    stored = meant(statedir, name, running=True)
    engine = engine_of(stored)
    state = launcher.ours(engine, stored)
    if state.status is not ContainerStatus.RUNNING:
        raise ClaudeProxyError(
            f'the container "{stored.name}" does not run',
            where=f"its state: {state.status}",
            fix=f"start it: claude-proxy container start {stored.name}",
        )
    return RunningContainer(stored, engine, state, store.directory_of(statedir, stored.name))


def all_meant(
    statedir: Path, names: Sequence[str], *, every: bool, running: bool
) -> list[StoredContainer]:
    """Return the containers that are named, all of them, or the one that is meant."""
    if every and names:
        raise ConfigError("--all names every container", where=" ".join(names), fix="leave it out")
    if every:
        return list(store.load_all(statedir))
    if names:
        return [store.load(statedir, name) for name in dict.fromkeys(names)]
    return [meant(statedir, None, running=running)]


def refuse_temporary(stored: StoredContainer, *, otherwise: str = "") -> None:
    """Refuse a container that is gone when it ends; `otherwise` is what else its user can do."""
    if stored.remove:
        raise ClaudeProxyError(
            f'the container "{stored.name}" is removed when it ends, because of --rm',
            where=stored.name,
            fix="make it without --rm" + (f"; or {otherwise}" if otherwise else ""),
        )


def warn_without_keeper(container: RunningContainer) -> None:
    """Say that a container has lost its proxy, which is no reason not to go into it."""
    if not container.has_keeper:
        name = container.stored.name
        click.echo(
            f"claude-proxy: warning: the proxy of {name} is gone, so it has no network; "
            f"claude-proxy container start {name} gives it back",
            err=True,
        )
