"""Of the user's settings, preferences are carried into a run's home and secrets are not."""

import json
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.sandbox.plan.agent_settings import filter_of

PROJECT = Path("/src/app")
KEY = "sk-ant-api03-0123456789-the-end-of-a-key"


def carried(
    name: str, given: dict[str, Any], **environ: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    filter_ = filter_of(name, PROJECT, environ)
    assert filter_ is not None
    found = filter_(json.dumps(given).encode())
    assert found is not None
    return json.loads(found.content), found.left_out


def of_claude(given: dict[str, Any], **environ: str) -> dict[str, Any]:
    return carried(".claude.json", given, **environ)[0]


def test_preferences_are_carried_and_what_is_unknown_is_not() -> None:
    given = {"theme": "dark", "hasCompletedOnboarding": True, "userID": "x", "new": "y"}

    assert of_claude(given) == {"theme": "dark", "hasCompletedOnboarding": True}


def test_only_this_projects_entry_is_carried() -> None:
    own = {"hasTrustDialogAccepted": True, "allowedTools": ["Bash"], "history": ["a prompt"]}
    given = {"projects": {str(PROJECT): own, "/src/other": own}}

    found = of_claude(given)["projects"]

    assert found == {str(PROJECT): {"hasTrustDialogAccepted": True, "allowedTools": ["Bash"]}}


def test_trust_in_a_directory_above_is_trust_in_the_project() -> None:
    given = {"projects": {"/src": {"hasTrustDialogAccepted": True}}}

    assert of_claude(given)["projects"] == {str(PROJECT): {"hasTrustDialogAccepted": True}}


def test_the_account_is_carried_without_tokens() -> None:
    account = {
        "emailAddress": "ann@example.com",
        "accountUuid": "8a4dd1f2-9a3e-4d7a-b0a1-0f6d8e2c1b3a",
        "refreshToken": "x",
        "other": {"deep": 1},
    }

    found = of_claude({"oauthAccount": account})["oauthAccount"]

    assert set(found) == {"emailAddress", "accountUuid"}


def test_the_answer_about_a_key_is_carried_only_for_the_key_of_the_run() -> None:
    given = {"customApiKeyResponses": {"approved": [KEY[-20:], "of-another-key-12345"]}}

    assert of_claude(given) == {}
    found = of_claude(given, ANTHROPIC_API_KEY=KEY)["customApiKeyResponses"]
    assert found == {"approved": [KEY[-20:]], "rejected": []}


def test_mcp_servers_are_carried_without_variables_and_headers() -> None:
    servers = {
        "files": {"command": "npx", "args": ["-y", "@scope/server"], "env": {"KEY": "SECRET"}},
        "docs": {"type": "http", "url": "https://mcp.example/x", "headers": {"A": "SECRET"}},
        "plain": {"command": "/usr/bin/server", "env": {}},
    }

    found, left_out = carried(
        ".claude.json", {"mcpServers": servers, "projects": {str(PROJECT): {"mcpServers": servers}}}
    )

    assert "SECRET" not in json.dumps(found)
    assert (
        set(found["mcpServers"])
        == set(servers)
        == set(found["projects"][str(PROJECT)]["mcpServers"])
    )
    assert left_out[:2] == ("env of MCP server files", "headers of MCP server docs")


@pytest.mark.parametrize(
    "server",
    [
        {"command": "x", "args": ["--api-key", "abc"]},
        {"command": "x", "args": ["--token=abc"]},
        {"command": "x", "args": ["-e", "GH_TOKEN=abc"]},
        {"command": "x", "args": ["--header", "Authorization: Bearer abc"]},
        {"command": "x", "args": ["ghp_0123456789abcdefghij"]},
        {"command": "x", "args": ["a1b2c3d4e5f6a7b8c9d0e1f2a3b4"]},
        {"command": "x", "args": ["postgres://ann:secret@db.example/x"]},
        {"url": "https://mcp.example/?key=abc"},
        {"url": "https://ann:secret@mcp.example/"},
    ],
)
def test_a_server_whose_command_line_may_hold_a_secret_is_not_carried(
    server: dict[str, Any],
) -> None:
    found, left_out = carried(".claude.json", {"mcpServers": {"it": server}})

    assert found == {}
    assert left_out == ("MCP server it",)


@pytest.mark.parametrize("name", ["settings.json", "settings.local.json"])
def test_settings_are_carried_without_variables_that_may_be_secret(name: str) -> None:
    settings = {
        "model": "opus",
        "permissions": {"allow": ["Bash(npm run:*)"]},
        "env": {"MAX_THINKING_TOKENS": "1000", "DISABLE_TELEMETRY": "1", "X": KEY, "A_KEY": "k"},
    }

    found, left_out = carried(f".claude/{name}", settings)

    assert found["permissions"] == settings["permissions"]
    assert found["env"] == {"MAX_THINKING_TOKENS": "1000", "DISABLE_TELEMETRY": "1"}
    assert left_out == ("env.X", "env.A_KEY")


def test_servers_in_geminis_settings_are_carried_as_those_of_claude() -> None:
    found, _ = carried(
        ".gemini/settings.json", {"mcpServers": {"a": {"command": "x", "env": {"K": "SECRET"}}}}
    )

    assert found == {"mcpServers": {"a": {"command": "x"}}}


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"[" * 100_000, b"\xff", b'{"a":' * 5000 + b"1" + b"}" * 5000]
)
def test_a_file_that_is_no_usable_json_object_is_not_carried(raw: bytes) -> None:
    filter_ = filter_of(".claude/settings.json", PROJECT, {})

    assert filter_ is not None
    assert filter_(raw) is None


@pytest.mark.parametrize(
    "given",
    [
        {"projects": [], "mcpServers": 1, "oauthAccount": "x", "customApiKeyResponses": []},
        {"projects": {str(PROJECT): 1, "/src": 2}, "mcpServers": {"a": 1}},
        {"customApiKeyResponses": {"approved": "all"}},
    ],
)
def test_a_file_of_another_shape_carries_nothing(given: dict[str, Any]) -> None:
    assert of_claude(given, ANTHROPIC_API_KEY=KEY) == {}


@pytest.mark.parametrize(
    "command",
    [
        "curl -H 'Authorization: Bearer abcdefgh12345' https://api.example",
        "GH_TOKEN=abcdefgh12345678 gh pr list",
        "git push https://ann:hunter2@git.example/x",
        "deploy --api-key=abcdefgh12345678",
        "echo ghp_abcdefgh12345678",
    ],
)
def test_a_command_in_which_a_secret_is_written_out_is_not_carried(command: str) -> None:
    hook = {"matcher": "Bash", "hooks": [{"type": "command", "command": command}]}
    other = {"matcher": "Edit", "hooks": [{"type": "command", "command": "~/bin/format"}]}
    settings = {
        "permissions": {"allow": ["Bash(npm run test:*)", f"Bash({command})"]},
        "hooks": {"PreToolUse": [hook, other]},
        "statusLine": {"type": "command", "command": "~/.claude/statusline.sh"},
    }

    found, left_out = carried(".claude/settings.local.json", settings)

    assert found["permissions"] == {"allow": ["Bash(npm run test:*)"]}
    assert found["hooks"] == {"PreToolUse": [other]}
    assert found["statusLine"] == settings["statusLine"]
    assert left_out == ("a part of permissions", "a part of hooks")


def test_a_tool_that_was_allowed_with_a_secret_is_not_carried() -> None:
    own = {"allowedTools": ["Bash(ls)", "Bash(TOKEN=abcdefgh12345678 x)"]}

    found = of_claude({"projects": {str(PROJECT): own}})

    assert found["projects"][str(PROJECT)] == {"allowedTools": ["Bash(ls)"]}


@pytest.mark.parametrize("projects", [1, [], {"a": 1}, {"a": {"mcpServers": 1}}])
def test_settings_of_an_unknown_shape_are_carried_as_they_are(projects: object) -> None:
    found, left_out = carried(".claude/settings.json", {"projects": projects})

    assert (found, left_out) == ({"projects": projects}, ())


def test_other_files_are_copied_as_they_are() -> None:
    assert filter_of(".claude/CLAUDE.md", PROJECT, {}) is None
    assert filter_of(".tool/config", PROJECT, {}) is None
