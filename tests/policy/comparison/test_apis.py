"""Laws of what a change of the Messages API's restrictions opens."""

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.difference import opened

HEAD = "allow: [api.anthropic.com]\nanthropic: [{host: api.anthropic.com, "


def lines(old: str, new: str) -> list[str]:
    return list(map(str, opened(*(loader.load(text, name="list.yaml") for text in (old, new)))))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            "models: ['claude-sonnet-*']",
            "models: ['claude-*']",
            "the model claude-* but claude-sonnet-*",
        ),
        ("models: ['a*', 'b']", "models: ['b', 'a1']", None),
        ("server_tools: none", "server_tools: [web_search]", "the server tool web_search"),
        ("mcp_servers: none", "mcp_servers: [mcp.example]", "MCP servers on mcp.example"),
        (
            "models: [a], max_body: 1M",
            "models: [a], max_body: 2M",
            "bodies of up to 2 MiB, not 1 MiB",
        ),
        ("paths: [/v1/messages]", "paths: [/v1/messages, /v1/files]", "every method of /v1/files"),
    ],
)
def test_each_value_that_is_allowed_now_is_named(old: str, new: str, text: str | None) -> None:
    found = lines(f"{HEAD}{old}}}]", f"{HEAD}{new}}}]")

    assert found == ([] if text is None else [f"{text} on https://api.anthropic.com"])


def test_the_end_of_restrictions_opens_what_they_denied() -> None:
    found = lines(f"{HEAD}models: ['claude-*']}}]", "allow: [api.anthropic.com]")

    assert "the model * but claude-* on https://api.anthropic.com" in found
    assert "bodies that nobody judges, of any size on https://api.anthropic.com" in found
