"""Linked worktrees that a run has added in the project, made known to the host's repository.

Law kept: the sandbox cannot move its own wall. The administrative directory is written here, from
what was read as data: where its files are, which must be in the project and name it in turn, and
what is checked out. Its index is made from that commit.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.sandbox.git import host_head
from claude_proxy.sandbox.git.host_git import HostGit
from claude_proxy.sandbox.git.no_links import kind_of, names_in, root_of, text_in
from claude_proxy.sandbox.git.ref_names import BRANCHES, is_object, is_valid
from claude_proxy.sandbox.plan.git_facts import GitDirectory
from claude_proxy.sandbox.safe_read import text_of

_NAME = lazy_pattern(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_LIMIT = 4096
_MOST = 200


def add_new_worktrees(directory: GitDirectory, project: Path) -> list[str]:
    """Add them, after the run's commits have come over; return what went wrong."""
    problems = []
    with root_of(directory.private) as root:
        new = list(_new_in(root, directory))
        git = HostGit(directory.host)
        taken = {host_head.head_of(git).name, *host_head.checked_out_elsewhere(git)} if new else ()
        for name in new:
            at = text_in(root, f"worktrees/{name}/gitdir", _LIMIT).rstrip("\n")
            head = text_in(root, f"worktrees/{name}/HEAD", _LIMIT).rstrip("\n")
            if head.removeprefix("ref: ") in taken or not _is_head(head):
                continue  # git itself checks no branch out twice
            if _is_in(Path(at), project, directory.host / "worktrees" / name):
                problem = _add(directory.host, name, at, head)
                if problem:
                    problems.append(f"the worktree {name}: {problem}")
    return problems


def _new_in(root: int, directory: GitDirectory) -> Iterator[str]:
    if kind_of(root, "worktrees") != stat.S_IFDIR:
        return
    for name in names_in(root, "worktrees")[:_MOST]:
        known = os.path.lexists(directory.host / "worktrees" / name)
        if _NAME.fullmatch(name) and not known:
            yield name


def _is_in(dot: Path, project: Path, admin: Path) -> bool:
    """Tell whether a `.git` file is in the project and names this administrative directory."""
    above = os.path.realpath(dot.parent)
    return (
        dot.name == ".git"
        and above == str(dot.parent)
        and dot.is_relative_to(os.path.realpath(project))
        and not dot.is_symlink()
        and text_of(dot).rstrip("\n") == f"gitdir: {admin}"
    )


def _is_head(text: str) -> bool:
    name = text.removeprefix("ref: ")
    return is_object(text) or (name != text and name.startswith(BRANCHES) and is_valid(name))


def _add(host: Path, name: str, at: str, head: str) -> str:
    """Write the administrative directory; return why not."""
    commit = head.removeprefix("ref: ")
    if not HostGit(host).run("rev-parse", "-q", "--verify", f"{commit}^{{commit}}").ok:
        return "what it has checked out did not come over"
    admin = host / "worktrees" / name
    admin.parent.mkdir(exist_ok=True)
    admin.mkdir()
    for file, text in {"commondir": "../..", "gitdir": at, "HEAD": head}.items():
        (admin / file).write_text(f"{text}\n", "utf-8", "surrogateescape")
    answer = HostGit(admin).run("read-tree", "HEAD")
    if answer.ok:
        return ""
    with suppress(OSError):
        shutil.rmtree(admin)
    return answer.reason
