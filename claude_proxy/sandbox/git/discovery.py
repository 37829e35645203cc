"""Git directories that a run needs a private copy of: found in and around a project.

Law kept: the sandbox cannot move its own wall. What a `.git` file or link names counts as
`git_directories` says; the private copies replace every one that the run could write.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from claude_proxy.deferred.data_classes import replace
from claude_proxy.sandbox.git.nested import git_entries_below
from claude_proxy.sandbox.git_directories import modules_in, named_by
from claude_proxy.sandbox.plan.git_facts import GitDirectory, GitMounts, ObjectStore
from claude_proxy.sandbox.plan.model import Worktree
from claude_proxy.sandbox.safe_read import text_of

_MAX_ALTERNATES = 20
_BARE = ("HEAD", "objects", "refs")


def discover(
    project: Path, worktree: Worktree | None, trusted: Iterable[Path], place: Path
) -> GitMounts:
    """Return the Git directories of a project, with private ones below `place`.

    `worktree` and `trusted` are what `git_directories.git_of` found.
    """
    project = Path(os.path.realpath(project))
    found = _Discovery(project, place)
    found.add_main(worktree, list(trusted))
    return found.result()


def is_bare(directory: Path) -> bool:
    """Tell whether a directory itself has the layout of a Git directory."""
    return (directory / "HEAD").is_file() and all((directory / name).is_dir() for name in _BARE[1:])


class _Discovery:
    """Collects the Git directories of one project."""

    def __init__(self, project: Path, place: Path) -> None:
        self._project = project
        self._place = place
        self._directories: dict[Path, GitDirectory] = {}
        self._files: list[Path] = []
        self._links: list[tuple[Path, Path]] = []
        self._stores: dict[Path, ObjectStore] = {}

    def add_main(self, worktree: Worktree | None, trusted: list[Path]) -> None:
        """Add the project's own repository."""
        dot = self._project / ".git"
        if dot.is_symlink():
            self._links.append((dot, Path(os.path.realpath(dot))))
            if trusted and dot.is_dir():
                self._add(Path(os.path.realpath(dot)), main=True)
        elif dot.is_dir():
            self._add(dot, main=True)
        elif dot.is_file():
            self._files.append(dot)
            self._add_named(dot, worktree, trusted)
        elif is_bare(self._project):
            self._add(self._project, main=True)

    def _add_named(self, dot: Path, worktree: Worktree | None, trusted: list[Path]) -> None:
        if worktree is not None:
            self._add(worktree.common, main=worktree.git == worktree.common)
            return
        named = named_by(dot)
        real = None if named is None else Path(os.path.realpath(named))
        if real is None or not (trusted or real.is_relative_to(self._project)):
            return
        common = real.parent.parent if real.parent.name == "worktrees" else real
        if common == real or common in trusted or common.is_relative_to(self._project):
            self._add(common, main=common == real)

    def result(self) -> GitMounts:
        """Look for repositories below, and return everything."""
        found = git_entries_below(self._project)
        for directory in found.directories:
            self._add(directory, main=True)
        for file in found.files:
            self._files.append(file)
            named = named_by(file)
            real = None if named is None else Path(os.path.realpath(named))
            if real is not None and real.is_relative_to(self._project):
                common = real.parent.parent if real.parent.name == "worktrees" else real
                self._add(common, main=common == real)
        for link in found.links:
            self._links.append((link, Path(os.path.realpath(link))))
        numbers = {path: number for number, path in enumerate(self._stores)}
        directories = tuple(
            replace(one, stores=tuple(numbers[path] for path in _stores_of(one.host)))
            for one in self._directories.values()
        )
        return GitMounts(
            directories,
            tuple(self._files),
            tuple(self._links),
            tuple(self._stores.values()),
            found.complete,
        )

    def _add(self, host: Path, *, main: bool) -> None:
        """Add a Git directory with those of its submodules."""
        if any(host == known or known in host.parents for known in self._directories):
            return
        if not is_bare(host):
            return
        number = len(self._directories)
        private, start = self._place / str(number), self._place / f"{number}.start"
        worktrees = (*([""] if main else ()), *self._worktrees_of(host))
        self._put(GitDirectory(host, private, start, worktrees=worktrees))
        for holder in (host, *(host / name for name in worktrees if name)):
            for module in modules_in(holder):
                below = module.relative_to(host)
                self._put(GitDirectory(module, private / below, start / below, within=True))

    def _put(self, directory: GitDirectory) -> None:
        hooks = directory.host / "hooks"
        shown = Path(os.path.realpath(hooks)) if hooks.is_dir() else None
        self._directories[directory.host] = replace(directory, hooks=shown)
        for path in _stores_of(directory.host):
            lfs = path.parent / "lfs"
            self._stores[path] = ObjectStore(
                path,
                has_alternates=(path / "info/alternates").exists(),
                lfs=lfs if lfs.is_dir() and not lfs.is_symlink() else None,
            )

    def _worktrees_of(self, host: Path) -> Iterator[str]:
        """Yield the linked worktrees whose files are in the project."""
        try:
            names = sorted(entry.name for entry in (host / "worktrees").iterdir())
        except OSError:
            return
        for name in names:
            text = text_of(host / "worktrees" / name / "gitdir").rstrip("\n")
            at = os.path.realpath(host / "worktrees" / name / text)
            if text and Path(at).is_relative_to(self._project):
                yield f"worktrees/{name}"


def _stores_of(host: Path) -> list[Path]:
    """Return a repository's directory of objects, and those that it borrows from."""
    found = [Path(os.path.realpath(host / "objects"))]
    for path in found:
        for line in _lines_of(path / "info/alternates"):
            other = Path(os.path.realpath(path / line))
            if other.is_dir() and other not in found and len(found) < _MAX_ALTERNATES:
                found.append(other)
    return found


def _lines_of(path: Path) -> list[str]:
    lines = text_of(path).split("\n")
    return [line for line in lines if line and not line.startswith(("#", '"'))]
