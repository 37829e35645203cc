"""What a run leaves that programs outside obey is found, wherever it is and at bounded cost."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.sandbox.obeyed_states import Kind, ObeyedStates, states_after, states_before
from claude_proxy.sandbox.plan.model import WatchedTree

NOBODY = 65534


def before(project: Path, limit: int = 1000) -> ObeyedStates:
    return states_before([WatchedTree(project)], limit=limit)


def after(project: Path, limit: int = 10_000) -> ObeyedStates:
    return states_after([WatchedTree(project)], limit=limit)


def changes(project: Path, then: ObeyedStates) -> dict[str, str]:
    found = after(project).changed_since(then)
    return {os.path.relpath(change.path, project): change.happened for change in found}


def kinds(project: Path, then: ObeyedStates) -> dict[str, Kind]:
    found = after(project).changed_since(then)
    return {os.path.relpath(change.path, project): change.kind for change in found}


def git(*words: str | Path) -> None:
    subprocess.run(["git", *words], check=True, capture_output=True)


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
    then = before(project)

    written(project / name)

    assert changes(project, then) == {name: "created or changed"}


def test_other_files_are_not_named(project: Path) -> None:
    then = before(project)

    written(project / "src/main.py")
    written(project / "node_modules/package/CLAUDE.md")
    written(project / ".claude/worktrees/w/src/main.py")
    program(project / "scripts/run.sh")

    assert changes(project, then) == {}


def test_a_change_is_seen_although_size_and_time_are_as_before(project: Path) -> None:
    file = written(project / "CLAUDE.md", "one")
    old = file.stat()
    then = before(project)

    file.write_text("two")
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))

    assert changes(project, then) == {"CLAUDE.md": "created or changed"}


def test_a_removed_file_is_named(project: Path) -> None:
    file = written(project / "AGENTS.md")
    then = before(project)

    file.unlink()

    assert changes(project, then) == {"AGENTS.md": "removed"}


def test_a_change_behind_a_link_is_seen(project: Path) -> None:
    target = written(project / "docs/agents.txt", "one")
    (project / "CLAUDE.md").symlink_to("docs/agents.txt")
    then = before(project)

    target.write_text("other")

    assert changes(project, then) == {"CLAUDE.md": "created or changed"}


def test_a_directory_of_settings_is_followed_through_a_link(project: Path) -> None:
    (project / "config").mkdir()
    (project / ".claude").symlink_to("config")
    then = before(project)

    written(project / "config/commands/c.md")

    assert changes(project, then) == {".claude/commands/c.md": "created or changed"}


def test_a_link_out_of_the_tree_is_named_and_not_followed(project: Path, tmp_path: Path) -> None:
    written(tmp_path / "elsewhere/CLAUDE.md")
    then = before(project)

    (project / ".claude").mkdir()
    (project / ".claude/away").symlink_to(tmp_path / "elsewhere")
    (project / "away").symlink_to(tmp_path / "elsewhere")

    assert changes(project, then) == {".claude/away": "created or changed"}


def test_a_circle_of_links_ends(project: Path) -> None:
    (project / ".claude").mkdir()
    (project / ".claude/again").symlink_to("..")
    (project / "again").symlink_to(".")

    assert not after(project).unvisited


# Repositories


@pytest.mark.parametrize("place", ["sub", "a/b/c", "node_modules/x", ".venv/lib", "__pycache__"])
def test_a_nested_repository_is_named_wherever_it_is(project: Path, place: str) -> None:
    then = before(project)

    git("init", "-q", project / place)

    assert kinds(project, then)[f"{place}/.git"] is Kind.REPOSITORY


@pytest.mark.parametrize("text", ["gitdir: elsewhere\n", ""])
def test_a_file_that_leads_git_elsewhere_is_named(project: Path, text: str) -> None:
    then = before(project)

    written(project / "sub/.git", text)

    assert kinds(project, then) == {"sub/.git": Kind.REPOSITORY}


def test_a_repository_in_the_root_of_a_project_without_one_is_named(project: Path) -> None:
    then = before(project)

    git("init", "-q", project)

    assert kinds(project, then) == {".git": Kind.REPOSITORY}


@pytest.mark.parametrize(
    "act",
    [
        lambda git_: git("--git-dir", git_, "config", "core.fsmonitor", "touch bad"),
        lambda git_: written(git_ / "hooks/pre-commit", "bad"),
        lambda git_: written(git_ / "commondir", "../elsewhere"),
        lambda git_: written(git_ / "modules/a/b/hooks/post-checkout", "bad"),
        lambda git_: (git_ / "config").unlink(),
    ],
)
def test_what_git_obeys_in_an_old_nested_repository_is_compared(project: Path, act: object) -> None:
    git("init", "-q", project / "sub")
    written(project / "sub/.git/modules/a/b/HEAD")
    then = before(project)

    assert callable(act)
    act(project / "sub/.git")

    assert kinds(project, then) == {"sub/.git": Kind.REPOSITORY}


def test_hooks_behind_a_link_are_compared(project: Path) -> None:
    git("init", "-q", "--template=", project / "sub")
    written(project / "elsewhere/pre-commit")
    (project / "sub/.git/hooks").symlink_to("../../elsewhere")
    then = before(project)

    written(project / "elsewhere/pre-commit", "bad")

    assert kinds(project, then) == {"sub/.git": Kind.REPOSITORY}


def test_work_in_an_old_nested_repository_is_not_named(project: Path) -> None:
    git("init", "-q", project / "sub")
    then = before(project)

    written(project / "sub/file")
    git("-C", project / "sub", "add", "file")
    git("-C", project / "sub", "-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "x")

    assert changes(project, then) == {}


@pytest.mark.parametrize("place", [".", "sub", "node_modules/deep"])
def test_a_directory_that_git_takes_for_a_repository_is_named(project: Path, place: str) -> None:
    then = before(project)

    git("init", "-q", "--bare", project / place)

    assert kinds(project, then)[place] is Kind.LAYOUT


def test_a_layout_whose_parts_are_elsewhere_is_named(project: Path) -> None:
    then = before(project)

    written(project / "sub/HEAD", "ref: refs/heads/x\n")
    written(project / "sub/commondir", "../other\n")

    assert kinds(project, then) == {"sub": Kind.LAYOUT}


def test_the_settings_of_an_old_layout_are_compared(project: Path) -> None:
    git("init", "-q", "--bare", project / "mirror.git")
    then = before(project)

    git("--git-dir", project / "mirror.git", "config", "core.fsmonitor", "touch bad")

    assert kinds(project, then) == {"mirror.git": Kind.LAYOUT}


@pytest.mark.parametrize("name", [".hg/hgrc", ".jj/repo/config.toml", ".sl/config"])
def test_repositories_of_others_are_named(project: Path, name: str) -> None:
    then = before(project)

    written(project / "sub" / name)

    assert list(kinds(project, then).values()) == [Kind.REPOSITORY]


# Programs


def program(path: Path) -> Path:
    written(path, "#!/bin/sh\n").chmod(0o755)
    return path


def test_programs_in_environments_are_named(project: Path) -> None:
    for name in (".venv", "env"):
        written(project / name / "pyvenv.cfg")
    old = program(project / ".venv/bin/python")
    then = before(project)

    program(project / ".venv/bin/git")
    program(project / "env/bin/git")
    program(project / "node_modules/.bin/tsc")
    written(project / "env/lib/python3/site-packages/evil.pth")
    written(project / ".venv/lib/python3/site-packages/sitecustomize.py")
    written(project / ".venv/lib/python3/site-packages/package/module.py")

    assert old.exists()
    assert set(changes(project, then)) == {
        ".venv/bin/git",
        ".venv/lib/python3/site-packages/sitecustomize.py",
        "env/bin/git",
        "env/lib/python3/site-packages/evil.pth",
        "node_modules/.bin/tsc",
    }


def test_of_a_directory_of_programs_only_what_can_be_run_is_named(project: Path) -> None:
    trees = [WatchedTree(project / "bin", programs=True, by="your shell")]
    then = states_before(trees)

    program(project / "bin/git")
    (project / "bin/link").symlink_to("../x")
    written(project / "bin/README")

    found = list(states_after(trees).changed_since(then))
    assert [Path(change.path).name for change in found] == ["git", "link"]
    assert {(change.kind, change.by) for change in found} == {(Kind.PROGRAM, "your shell")}


# Limits


def test_a_walk_looks_at_no_more_entries_than_its_limit_and_says_where(project: Path) -> None:
    for number in range(50):
        written(project / f"{number:02}/file")

    assert not after(project).not_looked_at(before(project))
    assert after(project, limit=20).not_looked_at(before(project))[0] == str(project)


def test_one_full_directory_hides_no_other(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claude_proxy.sandbox.obeyed_states._IN_ONE_DIRECTORY", 30)
    then = before(project)
    for number in range(50):
        written(project / f"a/{number}")

    written(project / "b/c/CLAUDE.md")

    assert set(changes(project, then)) == {"b/c/CLAUDE.md"}
    assert after(project).not_looked_at(then) == [str(project / "a")]


def test_of_what_the_walk_before_left_out_only_the_new_is_named(project: Path) -> None:
    for number in range(9):
        written(project / f"{number}/CLAUDE.md")
    then = before(project, limit=12)
    assert then.unvisited
    aged = ObeyedStates(then.states, then.unvisited, then.unreadable, then.began_ns + 10**9)

    assert changes(project, aged) == {}

    for number in range(9):
        written(project / f"{number}/AGENTS.md")

    assert set(changes(project, then)) >= {f"{number}/AGENTS.md" for number in range(9)}


@pytest.fixture
def project_of_nobody() -> Iterator[Path]:
    """A project of an ordinary user, as whom the test goes on: root may read everything."""
    with tempfile.TemporaryDirectory() as name:
        found = Path(name).resolve()
        if os.geteuid() != 0:
            yield found
            return
        os.chown(found, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield found
        finally:
            os.seteuid(0)


def test_a_directory_that_became_unreadable_is_not_looked_at(project_of_nobody: Path) -> None:
    project = project_of_nobody
    (project / "old").mkdir(mode=0)
    then = before(project)
    (project / "new").mkdir(mode=0)

    assert after(project).not_looked_at(then) == [str(project / "new")]


def test_a_path_that_is_too_long_is_not_looked_at(project: Path) -> None:
    then = before(project)
    here = os.open(project, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)

    assert len(after(project).not_looked_at(then)) == 1

    subprocess.run(["rm", "-rf", project / ("d" * 200)], check=True)


# Directories of agents, and single paths


def test_of_an_agents_own_directory_everything_but_its_data_counts(project: Path) -> None:
    trees = [WatchedTree(project / "own", whole=True, by="Claude Code")]
    then = states_before(trees)

    for name in ("commands/c.md", "shell-snapshots/s.sh", "local/claude", "projects/p/log.jsonl"):
        written(project / "own" / name)

    found = states_after(trees).changed_since(then)
    assert [os.path.relpath(change.path, project / "own") for change in found] == [
        *("commands/c.md", "local/claude", "shell-snapshots/s.sh")
    ]


def test_of_a_file_of_settings_and_data_only_the_settings_count(project: Path) -> None:
    file = written(project / ".claude.json", '{"numStartups": 1}')
    trees = [WatchedTree(file, whole=True, by="Claude Code")]
    then = states_before(trees)

    file.write_text('{"numStartups": 2}')
    assert list(states_after(trees).changed_since(then)) == []

    file.write_text('{"mcpServers": {"a": {"command": "bad"}}}')
    (change,) = states_after(trees).changed_since(then)
    assert change.path == f"{file}: mcpServers"


def test_a_watched_path_counts_whatever_its_name(project: Path) -> None:
    watched = [project / "hooks", project / "other", project / "sub/.git"]
    then = states_before([], watched)

    written(project / "hooks/pre-commit")
    written(project / "other")
    written(project / "sub/.git")

    found = states_after([], watched).changed_since(then)
    assert {os.path.relpath(change.path, project) for change in found} == {
        *("hooks", "hooks/pre-commit", "other", "sub/.git")
    }


def test_a_script_is_named_with_the_file_that_starts_it(project: Path) -> None:
    scripts = {written(project / "check.sh"): project / ".envrc"}
    then = states_before([], (), scripts)

    written(project / "check.sh", "bad")

    (change,) = states_after([], (), then.scripts).changed_since(then)
    assert (change.kind, change.by) == (Kind.SCRIPT, str(project / ".envrc"))


def test_what_is_covered_inside_is_left_out(project: Path) -> None:
    trees = [WatchedTree(project, covered=frozenset({project / ".git"}))]
    then = states_before(trees)

    git("init", "-q", project)

    assert not list(states_after(trees).changed_since(then))
