"""Whether an owner who binds a credential is warned of hosts that accept other accounts."""

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
PRESET = ["claude.ai", "claude.com", "platform.claude.com", "mcp-proxy.anthropic.com"]


def open_under(text: str) -> list[str]:
    return list(unbound_hosts(loader.load(text, name="test")))


def test_without_a_bound_credential_there_is_no_warning() -> None:
    assert open_under("allow: [{preset: claude}]") == []


@pytest.mark.parametrize("of", ["github.com", "api.anthropic.example"])
def test_a_credential_for_another_host_says_nothing_of_these(of: str) -> None:
    text = WITH_A_KEY.replace("api.anthropic.com", of)

    assert open_under(f"allow: [{{preset: claude}}, {of}]{text}") == []


@pytest.mark.parametrize("kind", ["inject: auto", "pin: learn"])
def test_the_hosts_of_the_preset_take_any_account(kind: str) -> None:
    text = WITH_A_KEY.replace("inject: auto", kind)
    if kind == "pin: learn":
        text = text.replace("    from: {env: KEY}\n", "")

    assert open_under(f"allow: [{{preset: claude}}]{text}") == PRESET


def test_a_rule_for_the_domain_includes_the_console() -> None:
    assert "console.anthropic.com" in open_under(f"allow: [.anthropic.com]{WITH_A_KEY}")


def test_what_is_denied_bound_or_only_read_takes_no_account() -> None:
    text = (
        "allow:\n"
        "  - api.anthropic.com\n"
        "  - {host: claude.com, methods: [GET]}\n"
        "  - claude.ai\n"
        "  - platform.claude.com\n"
        "deny: [claude.ai]\n"
    )
    bound = WITH_A_KEY + "  - {host: platform.claude.com, name: other, pin: learn}\n"

    assert open_under(text + bound) == []


def test_the_fix_works() -> None:
    text = f"allow: [{{preset: claude}}]{WITH_A_KEY}"
    words = warn_of_unbound_hosts(loader.load(text, name="test"))

    assert words is not None
    line = words[1].partition("policy file: ")[2]
    assert open_under(f"{text}{line}\n") == []
