"""What a run creates or changes among the files that agents obey is found, at bounded cost."""

import os
from pathlib import Path

import pytest

from claude_proxy.sandbox.agent_file_states import AgentFileStates, states_in
from claude_proxy.sandbox.plan.model import WatchedTree


def states(project: Path, limit: int = 1000) -> AgentFileStates:
    return states_in([WatchedTree(project)], limit)


def changes(project: Path, before: AgentFileStates, limit: int = 1000) -> dict[str, str]:
    found = states(project, limit).changed_since(before)
    return {str(path.relative_to(project)): happened for path, happened in found}


def written(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "name",
    [
        *(".claude/commands/c.md", ".claude/agents/a.md", ".claude/skills/s/SKILL.md", "CLAUDE.md"),
        *("deep/down/CLAUDE.md", "deep/.cursor/rules/r.mdc", ".claude/worktrees/w/AGENTS.md"),
    ],
)
def test_a_new_agent_file_is_named_wherever_it_is(project: Path, name: str) -> None:
    before = states(project)

    written(project / name)

    assert changes(project, before) == {name: "created or changed"}


def test_other_files_are_not_named(project: Path) -> None:
    before = states(project)

    written(project / "src/main.py")
    written(project / "node_modules/package/CLAUDE.md")
    written(project / ".claude/worktrees/w/src/main.py")

    assert changes(project, before) == {}


def test_a_change_is_seen_although_size_and_time_are_as_before(project: Path) -> None:
    file = written(project / "CLAUDE.md", "one")
    old = file.stat()
    before = states(project)

    file.write_text("two")
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))

    assert changes(project, before) == {"CLAUDE.md": "created or changed"}


def test_a_removed_file_is_named(project: Path) -> None:
    file = written(project / "AGENTS.md")
    before = states(project)

    file.unlink()

    assert changes(project, before) == {"AGENTS.md": "removed"}


def test_a_change_behind_a_link_is_seen(project: Path) -> None:
    target = written(project / "docs/agents.txt", "one")
    (project / "CLAUDE.md").symlink_to("docs/agents.txt")
    before = states(project)

    target.write_text("other")

    assert changes(project, before) == {"CLAUDE.md": "created or changed"}


def test_a_directory_of_settings_is_followed_through_a_link(project: Path) -> None:
    (project / "config").mkdir()
    (project / ".claude").symlink_to("config")
    before = states(project)

    written(project / "config/commands/c.md")

    assert changes(project, before) == {".claude/commands/c.md": "created or changed"}


def test_a_circle_of_links_ends(project: Path) -> None:
    (project / ".claude").mkdir()
    (project / ".claude/again").symlink_to("..")
    (project / "again").symlink_to(".")

    assert states(project).complete


def test_a_walk_looks_at_no_more_entries_than_its_limit_and_says_so(project: Path) -> None:
    for number in range(50):
        written(project / f"{number:02}/file")

    assert states(project, limit=1000).complete
    assert not states(project, limit=20).complete


def test_what_an_incomplete_walk_left_out_is_not_called_new(project: Path) -> None:
    for number in range(9):
        written(project / f"{number}/CLAUDE.md")
    before = states(project, limit=12)

    written(project / "CLAUDE.md")

    assert changes(project, before) == {"CLAUDE.md": "created or changed"}


def test_in_a_tree_that_is_obeyed_as_a_whole_every_file_counts(project: Path) -> None:
    trees = [
        WatchedTree(project / "commands", whole=True),
        WatchedTree(project / "one", whole=True),
    ]
    before = states_in(trees)

    written(project / "commands/c.md")
    written(project / "one")

    found = states_in(trees).changed_since(before)
    assert [path.name for path, _ in found] == ["c.md", "one"]
