"""A keeper that may not enter a network leaves nothing; the rest is in the end-to-end tests."""

import os
import tempfile
from pathlib import Path

import pytest

from claude_proxy.config.allowlist.model import NetworkMode
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import store
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.keeper_start import start_keeper
from claude_proxy.sandbox.container.keeper_task import KeeperTask
from claude_proxy.sandbox.container.plan.model import EngineKind
from claude_proxy.sandbox.plan.model import Profile, SandboxSpec
from claude_proxy.sandbox.run_spec import RunSpec


def test_the_network_of_the_host_is_never_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="keeper-") as name:
        above = Path(name)
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        store.make_directory(above / "state" / "web")
        settings = Settings(above / "allowlist.yaml", above / "conf", above / "state")
        sandbox = SandboxSpec(("sh",), above, Profile("shell"), network=NetworkMode.NONE)
        engine = Engine(EngineKind.PODMAN, Path("/nowhere/podman"), {})
        task = KeeperTask(
            RunSpec(sandbox, settings), "web", above / "state" / "web", engine, pid=os.getpid()
        )

        channel = start_keeper(task)
        with pytest.raises(ClaudeProxyError, match="host's network"):
            channel.wait_for("started", print)
        channel.close()
        os.waitpid(channel.pid, 0)

        left = [path for path in (above / "claude-proxy").iterdir() if path.name != ".lock"]
    assert left == []
