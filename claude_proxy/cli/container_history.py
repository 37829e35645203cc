"""Where the home of a container is, for the commands `container export` and `container import`."""

import json
from pathlib import Path

from claude_proxy.cli.container_options import engine_of
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import store
from claude_proxy.sandbox.container.plan.model import ContainerStatus, EngineKind
from claude_proxy.sandbox.container.plan.planner import HOME


def home_of(statedir: str | None, name: str) -> Path:
    """Return the directory of a container's home; ClaudeProxyError while it is running.

    Its agent would write there at the same time.
    """
    place = statedir_in_force(statedir)
    stored = store.load(place, name)
    engine = engine_of(stored)
    state = engine.inspect(stored.name)
    if state is not None and state.status is ContainerStatus.RUNNING:
        raise ClaudeProxyError(
            f'the container "{name}" is running, and may be writing its history',
            where=name,
            fix=f"stop it first: claude-proxy container stop {name}",
        )
    if stored.engine is EngineKind.DOCKER:
        return store.directory_of(place, name) / HOME
    if not stored.volume:
        raise ClaudeProxyError(
            f'the home of "{name}" goes with the container', where="--rm", fix="run it without --rm"
        )
    (found,) = json.loads(engine.call("volume", "inspect", "--", stored.volume))
    return Path(str(found["Mountpoint"]))
