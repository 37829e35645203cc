"""Agent files: what coding agents, editors and shells obey in a project, by name; pure.

They cannot all be read-only: an agent is often asked to write them, and most do not exist yet. So a
run names those that it created or changed, wherever in the project they are. Names are compared
without regard to case, as some file systems do.
"""

from collections.abc import Iterator

# Instructions and settings, in any directory: an agent reads those of the directory it works in.
_FILES = frozenset(
    {
        "claude.md",
        "claude.local.md",
        "agents.md",
        "agents.override.md",
        "agent.md",
        "gemini.md",
        "qwen.md",
        "crush.md",
        "copilot-instructions.md",
        ".mcp.json",
        ".cursorrules",
        ".windsurfrules",
        ".clinerules",
        ".roorules",
        ".goosehints",
        ".rules",
        ".aider.conf.yml",
        "opencode.json",
        "opencode.jsonc",
        ".envrc",
        ".claude-proxy.yaml",
    }
)
_ENDINGS = (".instructions.md", ".prompt.md", ".chatmode.md", ".agent.md")  # of Copilot

# Whole directories: settings, commands, agents, skills, hooks, rules, tasks.
_DIRECTORIES = frozenset(
    {
        ".claude",
        ".claude-plugin",
        ".agents",
        ".codex",
        ".gemini",
        ".qwen",
        ".cursor",
        ".windsurf",
        ".clinerules",
        ".roo",
        ".kiro",
        ".kilocode",
        ".opencode",
        ".crush",
        ".continue",
        ".junie",
        ".amazonq",
        ".augment",
        ".vscode",
        ".idea",
        ".devcontainer",
        ".husky",
        ".githooks",
    }
)
# Claude Code checks out whole projects here, which are searched as projects are.
_CHECKOUTS = (".claude", "worktrees")

# Dependencies and caches: very many files, written by every build.
_SKIPPED = frozenset(
    {".git", ".hg", ".svn", ".jj", "node_modules", ".venv", "venv", "site-packages", "__pycache__"}
)

# In an agent's own directory in the home, which also holds histories and caches.
_IN_SETTINGS = (
    *("CLAUDE.md", "AGENTS.md", "AGENTS.override.md", "GEMINI.md", "settings.json", "config.toml"),
    *("settings.local.json", "hooks.json", "commands", "agents", "skills", "hooks", "plugins"),
    *("output-styles", "rules", "prompts", "extensions", "policies"),
)


def is_obeyed(name: str) -> bool:
    """Tell whether programs obey a file of this name in any directory."""
    folded = name.casefold()
    return folded in _FILES or folded.endswith(_ENDINGS)


def is_directory_obeyed(name: str) -> bool:
    """Tell whether programs obey everything in a directory of this name."""
    return name.casefold() in _DIRECTORIES


def holds_checkouts(parent: str, name: str) -> bool:
    """Tell whether this directory of an agent contains projects, and not settings."""
    return (parent.casefold(), name.casefold()) == _CHECKOUTS


def is_skipped(name: str) -> bool:
    """Tell whether a directory is not searched."""
    return name.casefold() in _SKIPPED


def names_in_settings() -> Iterator[str]:
    """Yield what an agent obeys in its own directory in the home."""
    yield from _IN_SETTINGS
