"""The restrictions of Claude Code's presets let it work, and let nothing be stored or run."""

import json
from functools import cache
from typing import Any

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.wire.authority import Authority

API = Authority.of("api.anthropic.com", 443)
MODEL = "claude-opus-5"
JSON = ((b"Content-Type", b"application/json"), (b"anthropic-beta", b"oauth-2025-04-20,any-1"))

# What Claude Code 2.1.197 was seen to ask for, with a key and with a sign-in.
SEEN = (
    *("POST /v1/messages?beta=true", "POST /v1/messages/count_tokens?beta=true"),
    *("POST /api/eval/sdk-a", "POST /api/event_logging/v2/batch", "GET /api/claude_code/settings"),
    *("GET /api/claude_code/policy_limits", "GET /api/claude_code_penguin_mode"),
    *("GET /mcp-registry/v0/servers?version=latest", "GET /api/web/domain_info?domain=a.test"),
    *(
        "GET /api/claude_cli/bootstrap?model=a",
        "GET /api/claude_code/organizations/metrics_enabled",
    ),
    *("HEAD /", "HEAD /api/hello", "GET /v1/models?limit=1000", "GET /v1/models/claude-opus-5"),
    *("GET /v1/mcp_servers?limit=1000", "POST /v1/oauth/token", "GET /api/oauth/profile"),
    *("POST /api/oauth/claude_cli/create_api_key", "GET /api/oauth/claude_cli/roles"),
)
STORED_OR_RUN = (
    *(
        "POST /v1/files",
        "GET /v1/files/file_1/content",
        "POST /v1/messages/batches",
        "GET /v1/files",
    ),
    *("POST /v1/skills", "POST /v1/agents", "POST /v1/sessions", "POST /v1/environments"),
    *("POST /v1/code/sessions", "GET /v1/organizations/users", "POST /v1/memory_stores"),
    *("POST /v1/organizations/api_keys/a", "POST /api/oauth/file_upload", "POST /v1/vaults"),
    *("POST /api/claude_code/memory", "POST /api/claude_code_shared_session_transcripts"),
    *("POST /api/frame/deploy/init", "POST /v1/filestore/fs/writeFile", "POST /v1/complete"),
    *("POST /api/claude_code/metrics", "POST /v1/chat/completions"),
    *("POST /v1/messages/", "POST /v1/Messages", "POST /v1/messages?model=a", "POST /v2/messages"),
)
EVIL = "https://evil.test/x"
OWN = "https://code.claude.com/docs/a.png"


@cache
def policy_of(preset: str) -> Policy:
    return loader.preset_policy(preset)


def request(line: str) -> Request:
    method, _, target = line.partition(" ")
    path, _, query = target.partition("?")
    return Request(Scheme.HTTPS, API, API, method, path, query, JSON)


def asks(preset: str = "claude", **others: Any) -> Decision:
    body = json.dumps({"model": MODEL, "messages": [], **others}).encode()
    return policy_of(preset).decide_content(request("POST /v1/messages?beta=true"), body)


@pytest.mark.parametrize("preset", ["claude-min", "claude"])
@pytest.mark.parametrize("line", SEEN)
def test_what_claude_code_asks_for_is_allowed(preset: str, line: str) -> None:
    assert policy_of(preset).decide_head(request(line)).allowed


@pytest.mark.parametrize("preset", ["claude-min", "claude"])
@pytest.mark.parametrize("line", STORED_OR_RUN)
def test_nothing_is_stored_at_the_api_or_run_there(preset: str, line: str) -> None:
    decision = policy_of(preset).decide_head(request(line))

    assert (decision.allowed, decision.reason) == (False, Reason.ENDPOINT_NOT_ALLOWED)


@pytest.mark.parametrize("preset", ["claude-min", "claude"])
@pytest.mark.parametrize(
    "line",
    [
        "OPTIONS *",
        "PATCH /api/oauth/account/settings",
        "PUT /api/claude_code/notification/preferences",
        "DELETE /v1/models/a",
    ],
)
def test_nothing_of_an_account_is_changed_by_a_method_of_its_own(preset: str, line: str) -> None:
    decision = policy_of(preset).decide_head(request(line))

    assert (decision.allowed, decision.reason) == (False, Reason.METHOD_NOT_ALLOWED)


def test_what_is_narrowed_is_restricted_so_that_no_header_replaces_the_path() -> None:
    assert policy_of("claude").decide_head(request("POST /v1/messages")).restricted


@pytest.mark.parametrize("kind", ["web_search_20250305", "web_search_20260209", "advisor_20260301"])
def test_tools_that_reach_no_place_of_an_outsiders_choice_are_allowed(kind: str) -> None:
    assert asks(tools=[{"type": kind, "name": "a", "model": MODEL}]).allowed


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ({"tools": [{"type": "web_fetch_20250910"}]}, Reason.SERVER_TOOL_NOT_ALLOWED),
        ({"tools": [{"type": "code_execution_20260521"}]}, Reason.SERVER_TOOL_NOT_ALLOWED),
        ({"container": "a"}, Reason.SERVER_TOOL_NOT_ALLOWED),
        ({"mcp_servers": [{"type": "url", "url": EVIL}]}, Reason.MCP_SERVER_NOT_ALLOWED),
        # The allowlist has this host for reading alone.
        ({"mcp_servers": [{"type": "url", "url": OWN}]}, Reason.MCP_SERVER_NOT_ALLOWED),
        ({"system": [{"source": {"type": "url", "url": EVIL}}]}, Reason.SOURCE_NOT_ALLOWED),
        ({"system": [{"source": {"type": "file", "file_id": "a"}}]}, Reason.SOURCE_NOT_ALLOWED),
        # The API itself, with the account of whoever asks.
        (
            {"system": [{"source": {"type": "url", "url": f"https://{API.host}/v1/files/a"}}]},
            Reason.SOURCE_NOT_ALLOWED,
        ),
    ],
)
def test_the_api_goes_nowhere_outside_the_allowlist(wish: dict[str, Any], reason: Reason) -> None:
    decision = asks(**wish)

    assert (decision.allowed, decision.reason) == (False, reason)


def test_the_api_may_open_what_the_client_may() -> None:
    fetch = {"type": "web_fetch_20250910", "allowed_domains": ["npmjs.org"]}
    server = {"type": "url", "url": "https://mcp-proxy.anthropic.com/v1/mcp/a"}
    image = {"type": "image", "source": {"type": "url", "url": OWN}}

    assert asks(tools=[fetch], mcp_servers=[server], system=[image]).allowed


@pytest.mark.parametrize("pin", ["learn", "{from: {env: KEY}}"])
def test_the_api_may_not_open_what_a_login_is_bound_to(pin: str) -> None:
    # It would show a login there that is in the body, or none: nothing here sees which.
    text = f"""
        allow: [preset: claude, mcp.example.com]
        credentials: [{{host: mcp.example.com, pin: {pin}}}]
    """
    policy = loader.load(text, name="allowlist.yaml")
    server = {"type": "url", "url": "https://mcp.example.com/", "authorization_token": "other"}
    bodies = (
        {"mcp_servers": [server]},
        {"system": [{"source": {"type": "url", "url": "https://mcp.example.com/a.png"}}]},
        {"tools": [{"type": "web_fetch_20250910", "allowed_domains": ["mcp.example.com"]}]},
    )

    decisions = [
        policy.decide_content(
            request("POST /v1/messages"), json.dumps({"model": MODEL, **body}).encode()
        )
        for body in bodies
    ]

    assert [decision.reason for decision in decisions] == [
        Reason.MCP_SERVER_NOT_ALLOWED,
        Reason.SOURCE_NOT_ALLOWED,
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ]
