"""Without sandbox-exec a run on macOS is an error, and nothing is started."""

from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.config.settings import Settings
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.macos import runner
from claude_proxy.sandbox.plan.model import Profile, SandboxSpec
from claude_proxy.sandbox.run_spec import RunSpec


@pytest.fixture
def run_spec(tmp_path: Path) -> RunSpec:
    """An order of a user with a list."""
    (tmp_path / "project").mkdir()
    settings = Settings(tmp_path / "allowlist.yaml", tmp_path / "conf", tmp_path / "state")
    return RunSpec(SandboxSpec(("true",), tmp_path / "project", Profile("shell")), settings)


def test_without_sandbox_exec_nothing_is_run(
    run_spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SANDBOX_EXEC", Path("/nonexistent/sandbox-exec"))

    with pytest.raises(ClaudeProxyError, match="sandbox-exec not found") as caught:
        runner.run(run_spec, {})

    assert caught.value.exit_code == 1


@pytest.mark.parametrize("name", ["join", "verify"])
def test_an_option_that_macos_lacks_is_refused_and_not_ignored(
    run_spec: RunSpec, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(runner, "SANDBOX_EXEC", Path("/"))
    changed = {"join": "127.0.0.1:9"} if name == "join" else {"verify": True}

    with pytest.raises(ConfigError, match="not available on macOS"):
        runner.run(replace(run_spec, **changed), {})
