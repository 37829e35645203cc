"""Repositories within a project: a walk for `.git` entries below its root, nearest first.

Bounded: a project of any size delays the start by some hundredths of a second, and a walk that was
cut short says so.
"""

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass

_MOST_ENTRIES = 30_000
_SKIPPED = {"node_modules", ".venv", "venv", "__pycache__", "site-packages"}


@dataclass(slots=True)
class Found:
    """The `.git` entries below a project's root, by what they are."""

    directories: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    complete: bool = True


def git_entries_below(project: Path, limit: int = _MOST_ENTRIES) -> Found:
    """Return the `.git` entries below a project, without its own."""
    found, left = Found(), limit
    queue = deque([str(project)])
    while queue:
        directory = queue.popleft()
        for entry in _entries(directory):
            left -= 1
            if entry.name == ".git":
                if directory != str(project):
                    _note(entry, found)
            elif entry.name not in _SKIPPED and entry.is_dir(follow_symlinks=False):
                queue.append(entry.path)
        if left <= 0:
            found.complete = not queue
            break
    return found


def _entries(directory: str) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except OSError:
        return  # gone meanwhile, or not readable


def _note(entry: "os.DirEntry[str]", found: Found) -> None:
    path = Path(entry.path)
    if entry.is_symlink():
        found.links.append(path)
    elif entry.is_dir(follow_symlinks=False):
        found.directories.append(path)
    elif entry.is_file(follow_symlinks=False):
        found.files.append(path)
