"""Laws of capabilities: each is found wherever it appears, and opaque parts are skipped."""

from typing import Any

import pytest

from claude_proxy.policy.messages.capabilities import (
    CapabilityKind,
    capabilities_of,
    is_near_miss,
    tool_name,
)


def kinds(body: dict[str, Any]) -> set[CapabilityKind]:
    return {capability.kind for capability in capabilities_of(body)}


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"model": "m"}, CapabilityKind.MODEL),
        ({"betas": ["b"]}, CapabilityKind.BETA),
        ({"type": "web_search_20250305"}, CapabilityKind.SERVER_TOOL),
        ({"mcp_servers": [{"url": "https://a.test"}]}, CapabilityKind.MCP_SERVER),
        ({"source": {"type": "url", "url": "https://a.test"}}, CapabilityKind.SOURCE),
        ({"image_url": "https://a.test"}, CapabilityKind.SOURCE),
        ({"file_id": "f"}, CapabilityKind.FILE),
        ({"mcpServers": []}, CapabilityKind.NEAR_MISS),
    ],
    ids=lambda value: value.name if isinstance(value, CapabilityKind) else "",
)
def test_a_capability_is_found_at_any_depth(part: dict[str, Any], kind: CapabilityKind) -> None:
    assert kind in kinds(part)
    assert kind in kinds({"later": [{"than": {"now": part}}]})


def test_what_the_api_passes_on_unchanged_is_not_looked_into() -> None:
    part = {"model": "m", "url": "https://a.test"}

    assert kinds({"type": "tool_use", "input": part}) == set()
    assert kinds({"name": "t", "input_schema": {"properties": part}}) == set()


def test_a_tool_is_named_without_its_date() -> None:
    assert (tool_name("web_search_20250305"), tool_name("bash")) == ("web_search", "bash")


def test_a_key_is_a_near_miss_only_if_it_is_not_the_key_itself() -> None:
    assert is_near_miss("Model")
    assert is_near_miss("mcpServers")
    assert not is_near_miss("model")
    assert not is_near_miss("modelling")
