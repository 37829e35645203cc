"""What tools obey in a project is known by name, in any directory, with the tool's own page."""

from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest

from claude_proxy.sandbox.plan import obeyed_files
from claude_proxy.sandbox.plan.obeyed_files import TOOLS


def obeyed_by(path: str) -> str | None:
    at = PurePosixPath("/project", path)
    tool = obeyed_files.obeying(str(at.parent), at.name)
    return tool.name if tool else None


@pytest.mark.parametrize(
    "path",
    [
        *("CLAUDE.md", "claude.md", "CLAUDE.local.md", "AGENTS.md", "GEMINI.md", ".mcp.json"),
        *(".envrc", ".cursorrules", "copilot-instructions.md", "python.instructions.md", ".npmrc"),
        *("sub/.envrc", "sub/.roo/mcp.json", "a/b/.config/mise.toml", "team.code-workspace"),
    ],
)
def test_a_file_of_instructions_or_settings_is_obeyed_in_any_directory(path: str) -> None:
    assert obeyed_by(path) is not None


@pytest.mark.parametrize(
    "path", ["README.md", "claude.txt", "main.py", "instructions.md", "config/mise.toml.bak"]
)
def test_another_file_is_not(path: str) -> None:
    assert obeyed_by(path) is None


@pytest.mark.parametrize(
    "name", [".claude", ".Claude", ".codex", ".gemini", ".cursor", ".vscode", ".zed", ".clinerules"]
)
def test_everything_in_the_directory_of_an_agent_or_editor_is_obeyed(name: str) -> None:
    assert obeyed_files.obeying_all_in("/project", name) is not None


def test_a_directory_is_obeyed_only_below_the_one_that_the_tool_names() -> None:
    assert obeyed_files.obeying_all_in("/project/.github", "workflows") is not None
    assert obeyed_files.obeying_all_in("/project/docs", "workflows") is None


def test_a_checkout_of_claude_code_is_a_project_and_not_settings() -> None:
    assert obeyed_files.holds_checkouts(".claude", "worktrees")
    assert not obeyed_files.holds_checkouts("src", "worktrees")


@pytest.mark.parametrize(
    "name",
    [
        *(".claude/settings.json", ".claude/hooks", ".codex", ".cursor", ".zed", ".vscode"),
        *(".cargo", ".npmrc", ".pre-commit-config.yaml", ".venv/bin/activate", ".husky", ".idea"),
        *(".envrc", ".mcp.json", ".claude-proxy.yaml", ".yarnrc.yml", ".pnpmfile.cjs", ".windsurf"),
        *("lefthook.yml", ".gemini/settings.json", ".aider.conf.yml", ".opencode", "mise.toml"),
        *(".tool-versions", ".direnv", ".devcontainer", ".githooks"),
    ],
)
def test_what_makes_a_tool_run_a_command_is_protected(name: str) -> None:
    assert name in set(obeyed_files.protected_names())


@pytest.mark.parametrize(
    "name", ["CLAUDE.md", "AGENTS.md", ".claude", ".claude/commands", "Makefile", "package.json"]
)
def test_what_agents_are_asked_to_write_is_not_protected(name: str) -> None:
    assert name not in set(obeyed_files.protected_names())


def test_protected_names_stay_in_the_project() -> None:
    for name in obeyed_files.protected_names():
        assert not PurePosixPath(name).is_absolute()
        assert ".." not in PurePosixPath(name).parts


def test_every_protected_name_is_named_as_well_where_it_is_new() -> None:
    for tool in TOOLS:
        for name in tool.protected:
            at = PurePosixPath("/project/sub", name)
            known = obeyed_files.obeying_all_in if name.endswith("/") else obeyed_files.obeying
            assert known(str(at.parent), at.name), name


def test_every_tool_has_a_source_and_a_name_of_its_own() -> None:
    for tool in TOOLS:
        assert urlsplit(tool.source).scheme == "https", tool.name
        assert tool.protected or tool.reported, tool.name

    assert len({tool.name for tool in TOOLS}) == len(TOOLS)


def test_no_name_is_in_two_rows() -> None:
    names = [name for tool in TOOLS for name in (*tool.protected, *tool.reported)]

    assert sorted(names) == sorted(set(names))


def test_of_an_agents_own_directory_only_known_data_is_left_out() -> None:
    assert obeyed_files.is_data("projects")
    assert not obeyed_files.is_data("shell-snapshots")
    assert not obeyed_files.is_data("local")
    assert not obeyed_files.is_data("something-new")


def test_dependencies_are_told_from_a_projects_own_directories() -> None:
    assert obeyed_files.holds_dependencies("node_modules")
    assert not obeyed_files.holds_dependencies("src")
    assert obeyed_files.is_repository(".git")
