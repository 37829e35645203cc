"""Submodules that a run has initialized, made repositories of the host's.

Law kept: the sandbox cannot move its own wall. The repository is made here, with settings of its
own; commits come over as from any Git directory of the run. Without it, the `.git` file in the
submodule would lead nowhere, and `git status` would fail in the project.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.sandbox.git.bring_over import bring_over
from claude_proxy.sandbox.git.nested import git_entries_below
from claude_proxy.sandbox.git.no_links import kind_of, root_of
from claude_proxy.sandbox.git.ref_moves import Known
from claude_proxy.sandbox.plan.git_facts import GitDirectory
from claude_proxy.sandbox.safe_read import text_of

_NAME = lazy_pattern(r"modules(?:/(?:modules/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){1,10}")
_HEAD = "refs/heads/main"
_MOST = 100
_CONFIG = """\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = false
\tlogallrefupdates = true
\tworktree = "{}"
"""


def add_new_modules(directory: GitDirectory, project: Path, run: str) -> list[str]:
    """Add them, with what the run has checked out; return what went wrong."""
    problems = []
    for work_tree, name in list(_new_in(directory, project))[:_MOST]:
        host = directory.host / name
        _make(host, work_tree)
        done = bring_over(directory.private / name, host, run, known=Known(_HEAD), shares_tree=True)
        if not done.complete or done.head_problem:
            shutil.rmtree(host)
            problems.append(f"the submodule {name}: {done.head_problem or 'it did not come over'}")
    return problems


def _new_in(directory: GitDirectory, project: Path) -> Iterator[tuple[Path, str]]:
    """Yield work trees in the project whose `.git` file names a module that only the run has."""
    with root_of(directory.private) as root:
        if kind_of(root, "modules") != stat.S_IFDIR:
            return
        for dot in git_entries_below(Path(os.path.realpath(project))).files:
            text = text_of(dot).rstrip("\n").removeprefix("gitdir: ")
            named = Path(os.path.normpath(dot.parent / text))
            if not named.is_relative_to(directory.host) or os.path.lexists(named):
                continue
            name = str(named.relative_to(directory.host))
            printable = str(dot.parent).isprintable()
            if _NAME.fullmatch(name) and printable and kind_of(root, name) == stat.S_IFDIR:
                yield dot.parent, name


def _make(host: Path, work_tree: Path) -> None:
    for name in ("objects/info", "objects/pack", "refs/heads"):
        (host / name).mkdir(parents=True)
    at = os.path.relpath(work_tree, host).replace("\\", "\\\\").replace('"', '\\"')
    (host / "config").write_text(_CONFIG.format(at), "utf-8", "surrogateescape")
    (host / "HEAD").write_text(f"ref: {_HEAD}\n")
