"""Git directories of a project: those that git needs inside, and whose settings it obeys outside.

Law kept: the sandbox cannot move its own wall. A `.git` file, which an agent can write, is followed
only to a repository that itself names the project.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from claude_proxy.sandbox.plan.model import Worktree
from claude_proxy.sandbox.safe_read import text_of


def git_of(project: Path) -> tuple[Worktree | None, tuple[Path, ...], tuple[str, ...]]:
    """Return the project's Git directories, and the repository that it is a worktree of."""
    dot = project / ".git"
    if dot.is_symlink():
        note = f"{dot} is a symbolic link, so git finds no repository inside"
        return None, (), (note,)
    if dot.is_dir():
        return None, (dot, *_modules_in(dot)), ()
    if not dot.is_file():
        return None, (), ()
    worktree = worktree_of(project)
    if worktree is None:
        note = f"{dot} names a repository that does not name {project}; it is not shown"
        return None, (), (note,)
    directories = dict.fromkeys((worktree.common, worktree.git))
    modules = _modules_in(worktree.common)
    return worktree, (*directories, *modules), ()


def worktree_of(project: Path) -> Worktree | None:
    """Return the Git directory that `.git` names, if it names the project in turn.

    An agent can write any path into `.git`; it cannot write to directories elsewhere.
    """
    text = text_of(project / ".git")
    if not text.startswith("gitdir: "):
        return None
    named = text.removeprefix("gitdir: ").rstrip("\n")
    git = Path(os.path.realpath(project / named))
    if not git.is_dir() or not (git / "HEAD").is_file():
        return None
    back = text_of(git / "gitdir").rstrip("\n")
    here = os.path.realpath(project / ".git")
    if back and os.path.realpath(git / back) == here:
        # The common directory counts only if this one is in its `worktrees`.
        common = git.parent.parent
        if git.parent.name == "worktrees" and (common / "objects").is_dir():
            return Worktree(git, common)
        return None
    # A submodule: its own configuration names the directory that it is checked out to.
    found = re.search(r"^\s*worktree\s*=\s*(.+?)\s*$", _config_of(git), re.MULTILINE)
    if found and os.path.realpath(git / found[1].strip('"')) == os.path.realpath(project):
        return Worktree(git, git)
    return None


def worktree_paths(worktree: Worktree | None) -> tuple[Path, ...]:
    """Return the directories of a worktree."""
    return (worktree.git, worktree.common) if worktree else ()


def _modules_in(git: Path) -> list[Path]:
    """Return the Git directories of submodules, each with its own hooks and settings."""
    found: list[Path] = []
    if (git / "modules").is_symlink():
        return found
    for directory, names, files in os.walk(git / "modules"):
        if "HEAD" in files:
            found.append(Path(directory))
            names[:] = [name for name in names if name == "modules"]
    return found


def hooks_of(project: Path, directories: Iterable[Path]) -> Iterator[Path]:
    """Yield the hooks directories that the settings of these Git directories name."""
    for git in directories:
        for found in re.finditer(
            r"^\s*hooksPath\s*=\s*(.+?)\s*$", _config_of(git), re.MULTILINE | re.IGNORECASE
        ):
            text = found[1].strip('"')
            if not text.startswith("~"):
                yield Path(os.path.normpath(project / text))


def _config_of(git: Path) -> str:
    return text_of(git / "config")
