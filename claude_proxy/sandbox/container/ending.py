"""End of a container: stopped with its keeper, or removed with all that is kept of it.

Law kept: nothing is left. A container is stopped when its keeper has ended too, so that the next
start finds its name free.
"""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import (
    container_repositories,
    first_process,
    keeper_link,
    launcher,
    removal,
    store,
)
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.plan.model import NAME_LABEL, ContainerStatus
from claude_proxy.sandbox.container.store import StoredContainer

_PATIENCE_S = 30.0
_TERM = frozenset({"", "15", "TERM", "SIGTERM"})


def stop(engine: Engine, stored: StoredContainer, statedir: Path, *, timeout_s: int) -> bool:
    """Stop a container and wait for the end of its keeper; return whether it ran.

    One that is gone is no error: it does not run.
    """
    state = engine.inspect(stored.name)
    if state is None:
        _forget_if_over(engine, stored, statedir)
        return False
    launcher.ours(engine, stored)
    with _keeper_of(store.directory_of(statedir, stored.name)) as keeper:
        ran = state.status is ContainerStatus.RUNNING
        if ran:
            # Nothing is waited for where SIGTERM does nothing.
            is_deaf = state.stop_signal in _TERM and first_process.drops(state.pid, signal.SIGTERM)
            engine.stop(stored.name, timeout_s=0 if is_deaf else timeout_s)
        if keeper is not None:
            select.select([keeper], [], [], _PATIENCE_S)
    _forget_if_over(engine, stored, statedir)
    return ran


def remove(
    engine: Engine,
    stored: StoredContainer,
    statedir: Path,
    say: Callable[[str], None],
    *,
    force: bool,
) -> None:
    """Remove a container, its home and its record; ClaudeProxyError if it runs, unless `force`.

    One of that name which claude-proxy did not make is left alone. What was committed in it, and
    was not brought over because its keeper was killed, is brought over first.
    """
    state = engine.inspect(stored.name)
    if state is not None and state.labels.get(NAME_LABEL) == stored.name:
        if state.status is ContainerStatus.RUNNING and not force:
            raise ClaudeProxyError(
                f'the container "{stored.name}" runs',
                where=stored.name,
                fix=f"stop it first: claude-proxy container stop {stored.name}; or add --force",
            )
        with _keeper_of(store.directory_of(statedir, stored.name)) as keeper:
            with contextlib.suppress(ClaudeProxyError):
                engine.stop(stored.name, timeout_s=0)
            removal.remove_container(engine, stored)
            if keeper is not None:
                select.select([keeper], [], [], _PATIENCE_S)
    container_repositories.finish(store.directory_of(statedir, stored.name), statedir, say)
    removal.forget(statedir, stored, engine)


def _forget_if_over(engine: Engine, stored: StoredContainer, statedir: Path) -> None:
    """Forget a container of --rm, which the engine has removed at its end."""
    if stored.remove and engine.inspect(stored.name) is None:
        removal.forget(statedir, stored, engine)


@contextlib.contextmanager
def _keeper_of(directory: Path) -> Iterator[int | None]:
    """Yield a descriptor that is readable when the keeper has ended; None: there is none."""
    status = keeper_link.ask(directory, "status")
    descriptor = None
    if status is not None:
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(int(status["keeper"]))
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)
