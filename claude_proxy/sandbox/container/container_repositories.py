"""Git directories of a container's own: made before the start, brought over in the end.

They are in the container's directory while it runs. Law kept: nothing is lost: what could not be
brought over goes to where that of runs waits, and the next start tries again.
"""

import os
from collections.abc import Callable
from pathlib import Path

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.git import (
    given_back,
    kept_start,
    private_directory,
    private_repositories,
    record,
)
from claude_proxy.sandbox.git.discovery import discover
from claude_proxy.sandbox.git.record import Record
from claude_proxy.sandbox.git_directories import git_of
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.plan.model import SandboxSpec

FOLDER = "git"  # in the container's directory
INCOMPLETE = (
    "the project is too large to look everywhere for repositories within it; those in the nearest "
    "directories are protected, changes in others are named at the end"
)

type Reporter = Callable[[str], None]


def found_in(spec: SandboxSpec, directory: Path) -> GitMounts:
    """Return the Git directories of a container's project; nothing is made.

    `directory` is the container's. ConfigError if one cannot be protected.
    """
    if spec.clone is not None:
        return GitMounts()  # it has its own, and of the project none is shown
    worktree, trusted, _ = git_of(spec.project, (*spec.allow_ro, *spec.allow_rw))
    git = discover(spec.project, worktree, trusted, _place(directory))
    if git.links:
        raise ConfigError(
            "a symbolic link called .git cannot be protected in a container",
            where=", ".join(str(link) for link, _ in git.links),
            fix="replace it by a file with one line, gitdir: and the path that it leads to; or use "
            "`claude-proxy run`",
        )
    return git


def make(git: GitMounts, spec: SandboxSpec, directory: Path, owner: tuple[int, int]) -> None:
    """Make them, for the user of the container; ClaudeProxyError if that cannot be done."""
    if not git.directories:
        return
    place = _place(directory)
    with private_repositories.explained(place):
        os.close(record.create(Record(directory.name, spec.project, place, git.directories)))
        for one in git.directories:
            private_directory.make(one)
            kept_start.add(one, place.name)
            if os.geteuid() == 0:
                _give(one.private, owner)


def finish(directory: Path, statedir: Path, say: Reporter) -> None:
    """Bring over everything of a container that has ended."""
    try:
        ended = record.read(_place(directory))
    except (OSError, ValueError, KeyError, TypeError):
        return
    complete = private_repositories.finish(ended, say)
    for one in ended.directories:
        given_back.repository(one.host)
    if not complete:
        waiting = private_repositories.free(statedir / record.FOLDER, ended.run)
        waiting.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        ended.place.rename(waiting)


def _place(directory: Path) -> Path:
    # By its last part the ref is named that keeps the commit of the start.
    return Path(os.path.realpath(directory)) / FOLDER / directory.name


def _give(place: Path, owner: tuple[int, int]) -> None:
    """Make all that was copied the property of the container's user."""
    for _, names, files, directory in os.fwalk(place, follow_symlinks=False):
        os.chown(directory, *owner)
        for name in (*names, *files):
            os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
