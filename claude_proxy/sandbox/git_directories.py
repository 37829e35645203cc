"""Git directories of a project: those that git needs inside, and whose settings it obeys outside.

Law kept: the sandbox cannot move its own wall. A `.git` file or link, which an agent can write, is
followed only to a repository that is in the project, that itself names the project, or that the
user shows by an option.
"""

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from claude_proxy.sandbox.plan.model import Worktree
from claude_proxy.sandbox.safe_read import text_of

type _Found = tuple[Worktree | None, tuple[Path, ...], tuple[str, ...]]


def git_of(project: Path, allowed: Iterable[Path] = ()) -> _Found:
    """Return the repository that the project is a worktree of, its Git directories, and notes.

    `allowed` are the paths that the user shows to the run: a Git directory in one of them is
    trusted whether it names the project or not.
    """
    dot = project / ".git"
    if dot.is_dir():
        return _linked(project, allowed) if dot.is_symlink() else (None, _with_others(dot), ())
    if not dot.is_file():
        return None, (), _notes_without_git(project)
    worktree = worktree_of(project)
    if worktree is not None:
        directories = dict.fromkeys((worktree.common, worktree.git))
        modules = modules_in(worktree.common)
        return worktree, (*directories, *modules), ()
    named = named_by(project / ".git")
    if named is None:
        return None, (), (f"{dot} names no Git directory, so git finds no repository inside",)
    real = Path(os.path.realpath(named))
    places = (project, *allowed)
    if _is_in(real, places):
        return None, _with_others(real, places), ()
    what = f"{dot} names {named}, which does not name {project} in turn and is not shown"
    return None, (), (_advice(what, _common_of(named) or named),)


def _linked(project: Path, allowed: Iterable[Path]) -> _Found:
    """Follow a `.git` that is a symbolic link to a directory, if that is no way out."""
    dot = project / ".git"
    real = Path(os.path.realpath(dot))
    places = (project, *allowed)
    if _is_in(real, places):
        return None, _with_others(real, places), ()
    if _names_as_worktree(real, project):
        return Worktree(real, real), _with_others(real), ()
    target = Path(os.path.normpath(project / os.readlink(dot)))  # noqa: PTH115 - as it is written
    what = f"{dot} is a symbolic link to {target}, which is not shown"
    return None, (), (_advice(what, _common_of(target) or target),)


def _advice(what: str, path: Path) -> str:
    return (
        f"{what}, so git finds no repository inside; to show it, if you trust that path: "
        f"--allow-rw {shlex.quote(str(path))}"
    )


def _notes_without_git(project: Path) -> tuple[str, ...]:
    dot = project / ".git"
    if dot.is_symlink():
        return (f"{dot} is a symbolic link that leads nowhere, so git finds no repository inside",)
    for above in project.parents:
        if (above / ".git" / "HEAD").is_file():
            note = f"{project} is a part of the repository {above}, which git does not find inside"
            return (f"{note}; to run in all of it: --dir {shlex.quote(str(above))}",)
    return ()


def _with_others(git: Path, places: Iterable[Path] = ()) -> tuple[Path, ...]:
    """Return a Git directory with those of its submodules, and the one that it has in common."""
    common = _common_of(git)
    shared = (common, *modules_in(common)) if common and _is_in(common, places) else ()
    return tuple(dict.fromkeys((git, *modules_in(git), *shared)))


def _common_of(git: Path) -> Path | None:
    """Return the directory that a worktree's Git directory shares with others, if it is one."""
    text = text_of(git / "commondir").rstrip("\n")
    return Path(os.path.realpath(git / text)) if text else None


def _is_in(real: Path, places: Iterable[Path]) -> bool:
    return any(real.is_relative_to(os.path.realpath(place)) for place in places)


def named_by(dot: Path) -> Path | None:
    """Return the directory that a `.git` file names; None if that is none."""
    text = text_of(dot)
    if not text.startswith("gitdir: "):
        return None
    named = Path(os.path.normpath(dot.parent / text.removeprefix("gitdir: ").rstrip("\n")))
    return named if (named / "HEAD").is_file() else None


def worktree_of(project: Path) -> Worktree | None:
    """Return the Git directory that `.git` names, if it names the project in turn.

    An agent can write any path into `.git`; it cannot write to directories elsewhere.
    """
    named = named_by(project / ".git")
    if named is None:
        return None
    git = Path(os.path.realpath(named))
    back = text_of(git / "gitdir").rstrip("\n")
    here = os.path.realpath(project / ".git")
    if back and os.path.realpath(git / back) == here:
        # The common directory counts only if this one is in its `worktrees`.
        common = git.parent.parent
        if git.parent.name == "worktrees" and (common / "objects").is_dir():
            return Worktree(git, common)
        return None
    # A submodule: its own configuration names the directory that it is checked out to.
    return Worktree(git, git) if _names_as_worktree(git, project) else None


def _names_as_worktree(git: Path, project: Path) -> bool:
    found = re.search(r"^\s*worktree\s*=\s*(.+?)\s*$", _config_of(git), re.MULTILINE)
    if found is None:
        return False
    return os.path.realpath(git / found[1].strip('"')) == os.path.realpath(project)


def worktree_paths(worktree: Worktree | None) -> tuple[Path, ...]:
    """Return the directories of a worktree."""
    return (worktree.git, worktree.common) if worktree else ()


def modules_in(git: Path) -> list[Path]:
    """Return the Git directories of submodules, each with its own hooks and settings."""
    found: list[Path] = []
    if (git / "modules").is_symlink():
        return found
    for directory, names, files in os.walk(git / "modules"):
        if "HEAD" in files:
            found.append(Path(directory))
            names[:] = [name for name in names if name == "modules"]
    return found


def _config_of(git: Path) -> str:
    return text_of(git / "config")
