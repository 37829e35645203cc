"""Branches that a rebase of the host's has begun to rewrite, in any of its worktrees.

Law kept: nothing is lost on either side. At its end git gives such a branch its new commits only if
nobody has moved it, though HEAD does not lead to it meanwhile (rebase-merge/head-name).
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from claude_proxy.sandbox.git.ref_names import BRANCHES

_PLACES = ("rebase-merge/head-name", "rebase-apply/head-name")


def branches_in(common: Path) -> frozenset[str]:
    """Return the branches, by their full names, of rebases that have not ended."""
    return frozenset(name for name in _names(common) if name.startswith(BRANCHES))


def _names(common: Path) -> Iterator[str]:
    worktrees: list[Path] = []
    with suppress(OSError):
        worktrees = sorted((common / "worktrees").iterdir())
    for git in (common, *worktrees):
        for place in _PLACES:
            with suppress(OSError):
                yield (git / place).read_text("utf-8", "surrogateescape").rstrip("\n")
