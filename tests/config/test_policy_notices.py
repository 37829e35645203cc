"""A start says once for each list which hosts take anybody's account."""

from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.config.policy_notices import unbound_hosts_notice
from claude_proxy.config.settings import Settings

UNBOUND = loader.load("allow: [{preset: claude}]", name="test")
BOUND = loader.load(
    "allow: [{preset: claude}]\ncredentials: [{host: api.anthropic.com, pin: learn}]", name="test"
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "allowlist.yaml", tmp_path, tmp_path)


def test_a_list_without_a_bound_account_is_said_once(settings: Settings) -> None:
    first, second = (unbound_hosts_notice(settings, UNBOUND) for _ in range(2))

    assert first is not None
    assert "api.anthropic.com" in first
    assert "fix: " in first
    assert second is None


def test_another_list_has_its_own_notice(settings: Settings) -> None:
    unbound_hosts_notice(settings, UNBOUND)

    assert unbound_hosts_notice(replace(settings, policy="codex"), UNBOUND) is not None


def test_a_list_that_opens_more_hosts_is_said_again(settings: Settings) -> None:
    unbound_hosts_notice(settings, UNBOUND)
    wider = loader.load("allow: [{preset: claude}, claude.ai]", name="test")

    assert unbound_hosts_notice(settings, wider) is not None


def test_a_list_with_a_bound_account_has_no_notice(settings: Settings) -> None:
    assert unbound_hosts_notice(settings, BOUND) is None
