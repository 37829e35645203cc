"""A keeper knows whether its container runs already, so that its start is recorded once."""

from pathlib import Path

from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.keeper_task import KeeperTask
from claude_proxy.sandbox.container.plan.model import EngineKind
from tests.support.container_parts import a_spec

ENGINE = Engine(EngineKind.PODMAN, Path("/nowhere/podman"), {})


def test_a_container_that_has_a_process_goes_on() -> None:
    run, directory = a_spec().run, Path("/state/containers/web")

    assert KeeperTask(run, "web", directory, ENGINE, pid=7).goes_on
    assert not KeeperTask(run, "web", directory, ENGINE).goes_on
