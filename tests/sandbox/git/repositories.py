"""Real Git repositories of tests: a host's, and a run's Git directory made from it."""

import os
import shutil
import subprocess
from pathlib import Path

_IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@example.com")
_SETTINGS = ("-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main")


def git(*words: str | Path, at: Path, directory: Path | None = None, text: str = "") -> str:
    """Run git in a work tree, with another Git directory if one is given; return its output."""
    where = () if directory is None else (f"--git-dir={directory}", f"--work-tree={at}")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ("git", "-C", at, *where, *_IDENTITY, *_SETTINGS, *words),
        check=True,
        input=text,
        capture_output=True,
        text=True,
        env={**environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
    )
    return done.stdout.strip()


def commit(tree: Path, name: str, *, directory: Path | None = None) -> str:
    """Commit a file of this name and content; return the commit."""
    (tree / name).write_text(f"{name}\n")
    git("add", name, at=tree, directory=directory)
    git("commit", "-q", "-m", name, at=tree, directory=directory)
    return git("rev-parse", "HEAD", at=tree, directory=directory)


def repository(at: Path) -> Path:
    """Make a repository with one commit."""
    at.mkdir(parents=True)
    git("init", "-q", at=at)
    commit(at, "one")
    return at


def private_of(host: Path, at: Path) -> Path:
    """Make a run's Git directory: a copy, whose objects are those of the host by alternates."""
    shutil.copytree(host, at, symlinks=True, ignore=shutil.ignore_patterns("objects", "worktrees"))
    (at / "objects/info").mkdir(parents=True)
    (at / "objects/info/alternates").write_text(f"{host / 'objects'}\n")
    return at
