"""Where there is no sandbox-exec, a run under it is an error and nothing is started."""

from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.config.settings import Settings
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.launch import seat
from claude_proxy.launch.order import Order
from claude_proxy.launch.wish import Profile, Wish


@pytest.fixture
def order(tmp_path: Path) -> Order:
    """An order of a user with a list."""
    (tmp_path / "project").mkdir()
    settings = Settings(tmp_path / "allowlist.yaml", tmp_path / "conf", tmp_path / "state")
    return Order(Wish(("true",), tmp_path / "project", Profile("shell")), settings)


def test_without_sandbox_exec_nothing_is_run(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seat, "SANDBOX_EXEC", Path("/nonexistent/sandbox-exec"))

    with pytest.raises(ClaudeProxyError, match="sandbox-exec not found") as caught:
        seat.run(order, {})

    assert caught.value.exit_code == 1


@pytest.mark.parametrize("name", ["join", "verify"])
def test_what_it_cannot_do_is_refused_and_not_left_out(
    order: Order, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(seat, "SANDBOX_EXEC", Path("/"))
    changed = {"join": "127.0.0.1:9"} if name == "join" else {"verify": True}

    with pytest.raises(ConfigError, match="not to be had"):
        seat.run(replace(order, **changed), {})
