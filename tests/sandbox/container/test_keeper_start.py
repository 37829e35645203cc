"""A keeper is a child that says why it failed, and never runs what is the launcher's."""

import os
import tempfile
from pathlib import Path

import pytest

from claude_proxy.config.allowlist.model import NetworkMode
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import store
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.enter import HookFiles
from claude_proxy.sandbox.container.keeper_start import start_keeper
from claude_proxy.sandbox.container.keeper_task import KeeperTask
from claude_proxy.sandbox.container.plan.model import EngineKind
from claude_proxy.sandbox.plan.model import Profile, SandboxSpec
from claude_proxy.sandbox.run_log import log_of
from claude_proxy.sandbox.run_spec import RunSpec


def task(directory: Path) -> KeeperTask:
    settings = Settings(directory / "allowlist.yaml", directory / "conf", directory / "state")
    run = RunSpec(SandboxSpec(("sh",), directory, Profile("shell")), settings)
    engine = Engine(EngineKind.PODMAN, Path("/nowhere/podman"), {})
    return KeeperTask(run, "web", directory / "state" / "web", engine)


def test_a_keeper_that_cannot_begin_says_why_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="keeper-") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        (Path(name) / "claude-proxy").write_text("in the way")
        channel = start_keeper(task(Path(name)))

        with pytest.raises(ClaudeProxyError, match="directory"):
            channel.wait_for("started", print)
        channel.close()

        _, status = os.waitpid(channel.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1


def test_a_failure_that_nobody_foresaw_is_told_and_logged_without_its_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory(prefix="keeper-") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        plain = task(Path(name))
        sandbox = SandboxSpec(("sh",), Path(name), Profile("shell"), network=NetworkMode.NONE)
        settings = plain.run.settings
        no_pipes = HookFiles(plain.directory)
        store.make_directory(plain.directory)
        given = KeeperTask(
            RunSpec(sandbox, settings), "web", plain.directory, plain.engine, hook=no_pipes
        )
        channel = start_keeper(given)

        with pytest.raises(ClaudeProxyError, match="failed: FileNotFoundError") as told:
            channel.wait_for("started", print)
        channel.close()
        os.waitpid(channel.pid, 0)

        log = log_of(settings.statedir, "web")
        assert told.value.where == str(log)
        assert log.read_text("utf-8").endswith("failed: FileNotFoundError\n")
