"""A project, a clone of it, and an agent that works in the clone as one in a sandbox does."""

import os
from dataclasses import dataclass
from pathlib import Path

from claude_proxy.sandbox.git import clone_making, clones
from claude_proxy.sandbox.git.changes import Changes, changes_of
from claude_proxy.sandbox.git.clones import Clone
from claude_proxy.sandbox.git.taking import Taken, take
from tests.sandbox.git.repositories import commit, git, repository


@dataclass(frozen=True)
class Cloned:
    """The user's project and the clone; `inside` and `outside` run git in them."""

    project: Path
    statedir: Path
    name: str = "refactor"

    @property
    def clone(self) -> Clone:
        return clones.named(self.statedir, self.name)

    def inside(self, *words: str) -> str:
        return git(*words, at=self.clone.tree, directory=self.clone.git)

    def outside(self, *words: str) -> str:
        return git(*words, at=self.project)

    def commit(self, name: str) -> str:
        return commit(self.clone.tree, name, directory=self.clone.git)

    def write(self, name: str, text: str = "x\n", mode: int = 0o644) -> Path:
        path = self.clone.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def changes(self, *, since_start: bool = False) -> Changes:
        return changes_of(self.clone, environ(), since_start=since_start)

    def take(self, branch: str | None = None) -> Taken:
        return take(self.clone, environ(), branch)


def environ() -> dict[str, str]:
    """Return the environment of a user without settings."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}


def cloned(directory: Path, branch: str | None = None) -> Cloned:
    """Make a project with one commit, and a clone of it."""
    found = Cloned(directory / "project", directory / "state")
    if not found.project.exists():
        repository(found.project)
    clone_making.make(found.statedir, found.name, found.project, branch, environ())
    return found
