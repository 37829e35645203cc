"""Symbolic links in what programs outside obey: where they lead, and every link on the way.

Law kept: the sandbox cannot move its own wall. `.git/hooks` or `.vscode/tasks.json` may lead to a
file that a run can write, which Git or an editor outside would obey at its next start. Few
directories are looked at, each once; what is not looked at is said.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from claude_proxy.sandbox.plan import obeyed_files
from claude_proxy.sandbox.plan.model import ObeyedLink

_MOST_ENTRIES = 3000
_MOST_LINKS = 40  # on the way to one file, as the kernel has it
# What Git reads in a Git directory, and the directories of which each entry counts.
_IN_GIT = (
    *("HEAD", "config", "config.worktree", "commondir", "gitdir", "index", "packed-refs"),
    *("refs", "objects", "logs"),
)
_DIRECTORIES_IN_GIT = ("hooks", "info", "modules", "worktrees", "objects/info")
_OF_USER = (".gitconfig", ".config/git")


def links_of_git(
    directories: Iterable[Path], named: Iterable[Path], home: Path
) -> Iterator[ObeyedLink]:
    """Yield the links in Git directories, in what settings name, and in the user's own settings."""
    starts: dict[str, None] = {}
    for directory in dict.fromkeys(map(str, directories)):
        starts |= dict.fromkeys(f"{directory}/{name}" for name in _IN_GIT)
        for name in _DIRECTORIES_IN_GIT:
            starts |= dict.fromkeys(_with_entries(f"{directory}/{name}"))
        for name in _names_in(f"{directory}/worktrees"):
            starts |= dict.fromkeys(_entries_of(f"{directory}/worktrees/{name}"))
    for path in named:
        starts |= dict.fromkeys(_entries_of(str(path)))
    for name in _OF_USER:
        starts |= dict.fromkeys(_with_entries(f"{home}/{name}"))
    for start in starts:
        if (link := _link_at(start)) is not None:
            yield link


def links_of_settings(paths: Iterable[Path]) -> tuple[list[ObeyedLink], tuple[str, ...]]:
    """Return the links below protected directories, and notes on what is not looked at."""
    found: list[ObeyedLink] = []
    left = _MOST_ENTRIES
    for root in paths:
        directories = [str(root)]
        while directories:
            for entry in _scanned(directories.pop()):
                left -= 1
                if left < 0:
                    return found, (f"{root} has too many files to follow each link in it",)
                if entry.is_symlink():
                    link = _link_at(entry.path, of_git=False)
                    found += [link] if link is not None else []
                elif entry.is_dir(follow_symlinks=False) and not obeyed_files.holds_dependencies(
                    entry.name
                ):
                    directories.append(entry.path)
    return found, ()


def _with_entries(path: str) -> Iterator[str]:
    yield path
    yield from _entries_of(path)


def _entries_of(path: str) -> Iterator[str]:
    return (f"{path}/{name}" for name in _names_in(path))


def _names_in(path: str) -> list[str]:
    return [entry.name for entry in _scanned(path)]


def _scanned(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return [entry for entry, _ in zip(entries, range(_MOST_ENTRIES), strict=False)]
    except OSError:
        return []


def _link_at(path: str, *, of_git: bool = True) -> ObeyedLink | None:
    """Follow a path; None if no link is on the way to what it names."""
    if os.path.realpath(path) == path:
        return None
    links, end = _followed(path)
    if not links:
        return None
    return ObeyedLink(Path(path), tuple(map(Path, links)), Path(end), of_git)


def _followed(path: str) -> tuple[list[str], str]:
    """Return each link on the way, by its own real path, and where the last one leads."""
    links: list[str] = []
    at, parts = "", path.split("/")[::-1]
    while parts:
        part = parts.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            at = at.rpartition("/")[0]
            continue
        here = f"{at}/{part}"
        try:
            text = os.readlink(here)  # noqa: PTH115 - as it is written
        except OSError:
            at = here
            continue
        links.append(here)
        if len(links) > _MOST_LINKS:
            return links, here  # a circle
        at = "" if text.startswith("/") else at
        parts += text.split("/")[::-1]
    return links, at or "/"
