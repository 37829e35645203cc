"""Git in a real run: commits come over, and what git outside obeys stays out of reach."""

import os
import subprocess
from pathlib import Path

from .rig.launch import Launches

SETTINGS = ("-c", "safe.directory=*", "-c", "user.name=a", "-c", "user.email=a@example.com")
INSIDE = 'git() { command git -c user.name=a -c user.email=a@example.com "$@"; }; '


def git(*words: str, at: Path) -> str:
    environ = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        ("git", "-C", at, *SETTINGS, *words),
        check=True,
        capture_output=True,
        text=True,
        env=environ,
    )
    return done.stdout.strip()


def repository(at: Path) -> None:
    git("init", "-q", "-b", "main", at=at)
    git("commit", "-q", "--allow-empty", "-m", "one", at=at)


def test_a_commit_comes_over_and_the_hosts_own_is_kept(anybody: Launches) -> None:
    tree = anybody.project
    repository(tree)
    anybody.give(tree)

    ran = anybody.run(
        "sh",
        "-c",
        f"{INSIDE} echo x >x; git add x; git commit -qm two; git config core.fsmonitor evil",
        options=["--no-network", "--name", "commits"],
    )

    assert ran.returncode == 0, ran.stderr
    assert git("log", "--format=%s", at=tree) == "two\none"
    assert git("rev-parse", "refs/claude-proxy/commits/main", at=tree) == git(
        "rev-parse", "main", at=tree
    )
    assert git("status", "--porcelain", at=tree) == ""
    assert "evil" not in (tree / ".git/config").read_text()
    assert "brought over" in ran.stderr


def test_a_link_called_dot_git_works_and_cannot_be_replaced(anybody: Launches) -> None:
    tree = anybody.project
    repository(tree)
    (tree / ".git").rename(tree / "real")
    (tree / ".git").symlink_to("real")
    anybody.give(tree)

    ran = anybody.run(
        "sh",
        "-c",
        f"{INSIDE} git commit -q --allow-empty -m two; rm -rf .git; mkdir .git; mv real other",
        options=["--no-network"],
    )

    assert (tree / ".git").is_symlink(), ran.stderr
    assert git("log", "--format=%s", at=tree) == "two\none"
