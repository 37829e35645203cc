"""A history is a list of what is taken: no login, no program, no server, no link."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.sandbox.container.plan.history_selection import (
    content_of,
    is_history,
    may_hold_history,
    redacted,
    suspects,
)

TOKEN = "sk-ant-oat01-" + "A" * 40
LOGINS = [
    f'{{"text":"{TOKEN}"}}',
    '{"claudeAiOauth":{"accessToken":"abcdefghijk"}}',
    '{"content":"{\\"refreshToken\\": \\"abcdefghijk\\"}"}',
    "ghp_" + "a" * 36,
    "github_pat_" + "a" * 40,
    "AKIA" + "A" * 16,
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "npm_" + "a" * 36,
    "glpat-" + "a" * 20,
    "sk-proj-" + "a" * 40,
]


@pytest.mark.parametrize(
    "path",
    [
        ".claude/projects/-workspace/0b3c.jsonl",
        ".claude/projects/-workspace/0b3c/subagents/agent-1.jsonl",
        ".claude/projects/-workspace/memory/notes.md",
        ".claude/file-history/0b3c/8f2e@v1",
        ".claude/history.jsonl",
        ".claude/plans/a-plan.md",
        ".claude/todos/0b3c.json",
        ".claude/settings.json",
        ".claude/CLAUDE.md",
        ".claude.json",
    ],
)
def test_files_of_the_history_are_taken(path: str) -> None:
    assert is_history(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        ".claude",
        ".claude/.credentials.json",
        ".claude/projects/.credentials.json/../../.credentials.json",
        ".claude/settings.local.json",
        ".claude/statsig/x.json",
        ".claude/shell-snapshots/snapshot.sh",
        ".claude/plugins/x/run.sh",
        ".claude/ide/1.lock",
        ".claude/projects/../.credentials.json",
        "/.claude/history.jsonl",
        ".claude//history.jsonl",
        ".claude/./history.jsonl",
        "./.claude/history.jsonl",
        ".claude/history.jsonl/",
        "../.claude/history.jsonl",
        ".claude.json/x",
        ".bashrc",
        ".ssh/id_ed25519",
        ".claude/projects/-workspace/hook.sh",
        ".claude/agents/run.py",
        ".claude/plans/a\nb.md",
        ".claude/file-history/" + "/".join("a" * 20),
    ],
)
def test_everything_else_stays(path: str) -> None:
    assert not is_history(path)


@given(st.text())
def test_no_path_that_leaves_the_home_is_history(path: str) -> None:
    if is_history(path) or may_hold_history(path):
        assert not path.startswith("/")
        assert ".." not in path.split("/")


@given(st.binary())
def test_any_content_is_reduced_searched_and_redacted(data: bytes) -> None:
    assert content_of(".claude.json", data) is None or json.loads(data)
    assert not [*suspects("x", redacted(data))]


def test_the_state_has_no_account_no_key_no_server_and_no_trust() -> None:
    state = {
        "numStartups": 3,
        "oauthAccount": {"emailAddress": "a@example.com"},
        "primaryApiKey": TOKEN,
        "customApiKeyResponses": {"approved": ["x"]},
        "mcpServers": {"a": {"env": {"TOKEN": "x"}}},
        "projects": {
            "/workspace": {
                "history": [{"display": "hello"}],
                "mcpServers": {"b": {}},
                "hasTrustDialogAccepted": True,
                "allowedTools": ["Bash"],
            }
        },
        "somethingNew": "x",
    }

    found = content_of(".claude.json", json.dumps(state).encode())

    assert found is not None
    assert json.loads(found) == {
        "numStartups": 3,
        "projects": {"/workspace": {"history": [{"display": "hello"}]}},
    }


def test_settings_name_no_program_and_no_variable() -> None:
    settings = {
        "model": "opus",
        "env": {"ANTHROPIC_API_KEY": TOKEN},
        "apiKeyHelper": "/bin/key",
        "hooks": {"Stop": []},
        "statusLine": {"command": "x"},
        "permissions": {"allow": ["Read", 3], "defaultMode": "bypassPermissions"},
    }

    found = content_of(".claude/settings.json", json.dumps(settings).encode())

    assert found is not None
    assert json.loads(found) == {"model": "opus", "permissions": {"allow": ["Read"]}}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b"\xff", b"{}", b'{"apiKeyHelper":"x"}'])
def test_a_file_with_nothing_to_take_is_left_out(data: bytes) -> None:
    assert content_of(".claude/settings.json", data) is None


@pytest.mark.parametrize("text", LOGINS)
def test_the_shapes_of_credentials_are_found_with_their_line(text: str) -> None:
    data = f"first\n{text}\n".encode()

    assert [str(one) for one in suspects("a.jsonl", data)] == ["a.jsonl:2"]


@pytest.mark.parametrize("text", [login for login in LOGINS if login.startswith("{")])
def test_what_is_redacted_is_still_json(text: str) -> None:
    assert b"[REDACTED]" in redacted(text.encode())
    assert json.loads(redacted(text.encode()))


@pytest.mark.parametrize(
    "text",
    [
        "sk-ant-claude-proxy-placeholder-gateway-and-more",
        "the task-force-of-many-words-in-a-row",
        "risk-assessment-for-the-next-quarter",
        '"accessToken": "claude-proxy-placeholder-x"',
    ],
)
def test_placeholders_and_plain_words_are_no_credentials(text: str) -> None:
    assert not [*suspects("x", text.encode())]
