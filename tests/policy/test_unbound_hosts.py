"""Whether an owner is warned of hosts of a model's provider that take anybody's account."""

import re

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.unbound_hosts import unbound_hosts, warn_of_unbound_hosts

WITH_A_KEY = """
credentials:
  - host: api.anthropic.com
    name: key
    inject: auto
    from: {env: KEY}
"""
PINNED = "\ncredentials: [{host: api.anthropic.com, pin: learn}]\n"


def open_under(text: str) -> list[str]:
    return list(unbound_hosts(loader.load(text, name="test")))


def test_where_nothing_is_bound_the_api_and_its_connectors_take_any_account() -> None:
    assert open_under("allow: [{preset: claude}]") == [
        "api.anthropic.com",
        "mcp-proxy.anthropic.com",
    ]


@pytest.mark.parametrize("credentials", [WITH_A_KEY, PINNED], ids=["injected", "pinned"])
@pytest.mark.parametrize("preset", ["claude", "claude-min", "anthropic", "devcontainer"])
def test_an_account_that_is_bound_to_the_api_leaves_no_host_open(
    preset: str, credentials: str
) -> None:
    assert open_under(f"allow: [{{preset: {preset}}}]{credentials}") == []


def test_the_hosts_for_signing_in_take_no_account_as_far_as_the_preset_allows_them() -> None:
    assert open_under("allow: [{preset: claude-min}]") == ["api.anthropic.com"]


def test_a_rule_of_the_owner_for_a_whole_host_is_named() -> None:
    assert open_under("allow: [claude.ai, platform.claude.com]") == [
        "claude.ai",
        "platform.claude.com",
    ]


@pytest.mark.parametrize(
    ("preset", "hosts"),
    [
        ("codex", ["api.openai.com", "chatgpt.com"]),
        ("gemini", ["generativelanguage.googleapis.com", "cloudcode-pa.googleapis.com"]),
        ("github", []),
        ("npm", []),
    ],
)
def test_other_providers_are_named_as_well(preset: str, hosts: list[str]) -> None:
    assert open_under(f"allow: [{{preset: {preset}}}]") == hosts


def test_a_credential_for_another_host_closes_nothing_here() -> None:
    text = WITH_A_KEY.replace("api.anthropic.com", "api.anthropic.example")

    assert "api.anthropic.com" in open_under(f"allow: [{{preset: claude}}]{text}")


def test_what_is_denied_or_only_read_takes_no_account() -> None:
    text = "allow:\n  - {host: claude.com, methods: [GET]}\n  - claude.ai\ndeny: [claude.ai]\n"

    assert open_under(text) == []


def test_a_policy_that_allows_every_host_is_not_warned_of_some() -> None:
    assert open_under("default: allow") == []


def test_each_choice_of_the_warning_loads_and_closes_its_host() -> None:
    text = "allow: [{preset: claude}]\n"
    words = warn_of_unbound_hosts(loader.load(text, name="test"))

    assert words is not None
    entry = re.search(r"\{host: .*\}\}", words[1])
    deny = re.search(r"deny: \[.*\]", words[1])
    assert entry is not None
    assert deny is not None
    assert open_under(f"{text}credentials: [{entry[0]}]\n") == []
    assert open_under(f"{text}{deny[0]}\n") == ["api.anthropic.com"]
