"""Files that agents, editors and shells obey are known by name, in any directory."""

import pytest

from claude_proxy.sandbox.plan import agent_files


@pytest.mark.parametrize(
    "name",
    [
        *("CLAUDE.md", "claude.md", "CLAUDE.local.md", "AGENTS.md", "GEMINI.md", ".mcp.json"),
        *(".envrc", ".cursorrules", "copilot-instructions.md", "python.instructions.md"),
    ],
)
def test_a_file_of_instructions_or_settings_is_obeyed(name: str) -> None:
    assert agent_files.is_obeyed(name)


@pytest.mark.parametrize(
    "name", ["README.md", "claude.txt", "mcp.json", "main.py", "instructions.md"]
)
def test_another_file_is_not(name: str) -> None:
    assert not agent_files.is_obeyed(name)


@pytest.mark.parametrize("name", [".claude", ".Claude", ".codex", ".gemini", ".cursor", ".vscode"])
def test_everything_in_the_directory_of_an_agent_or_editor_is_obeyed(name: str) -> None:
    assert agent_files.is_directory_obeyed(name)


def test_a_checkout_of_claude_code_is_a_project_and_not_settings() -> None:
    assert agent_files.holds_checkouts(".claude", "worktrees")
    assert not agent_files.holds_checkouts("src", "worktrees")


def test_dependencies_are_not_searched() -> None:
    assert agent_files.is_skipped("node_modules")
    assert not agent_files.is_skipped("src")


def test_in_the_home_only_what_an_agent_obeys_is_named() -> None:
    names = set(agent_files.names_in_settings())

    assert {"CLAUDE.md", "commands", "agents", "skills", "settings.json"} <= names
    assert not {"projects", "history.jsonl", "todos"} & names
