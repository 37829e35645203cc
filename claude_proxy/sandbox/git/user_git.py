"""Git commands on the user's own repository, with the user's settings and nothing of a sandbox's.

Law kept: the sandbox cannot move its own wall. Hooks, the file system monitor and submodules, which
a run may have written in a shared work tree, are left out, and no variable of git is passed on.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.git.host_git import Answer

_SYSTEM_PATH = "/usr/bin:/bin:/usr/local/bin"
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "protocol.allow=never",
    "protocol.file.allow=always",
    "gc.auto=0",
    "maintenance.auto=false",
)
# What git needs to find the user's settings, and what those may need.
_PASSED = ("HOME", "XDG_CONFIG_HOME", "PATH", "USER", "LOGNAME", "TMPDIR")


@dataclass(frozen=True, slots=True)
class UserGit:
    """Runs git as the user would in one directory."""

    program: str
    directory: Path
    environment: Mapping[str, str]

    def run(self, *words: str, stdin: bytes = b"", git_dir: Path | None = None) -> Answer:
        """Run a command in the directory, or on another Git directory with the user's settings."""
        place = ("-C", str(self.directory)) if git_dir is None else (f"--git-dir={git_dir}",)
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        done = subprocess.run(  # noqa: S603 - git, with settings by which it runs nothing of a run
            [self.program, *place, "--no-pager", *settings, *words],
            input=stdin,
            capture_output=True,
            check=False,
            cwd="/",
            env=dict(self.environment),
        )
        return Answer(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))

    def line(self, *words: str) -> str:
        """Return the one line that a command prints; empty if it fails."""
        answer = self.run(*words)
        text = answer.out.decode("utf-8", "surrogateescape").removesuffix("\n")
        return text if answer.ok else ""

    def without_filters(self) -> "UserGit":
        """Return the same git with every filter switched off, whichever file configures it.

        A program of a filter may be a file of the project, or one that a planted configuration
        names.
        """
        words = (
            "-z",
            "--name-only",
            "--get-regexp",
            r"^filter\..*\.(clean|smudge|process|required)$",
        )
        found = self.run("config", *words).out.decode("utf-8", "surrogateescape").split("\0")
        names = [name for name in found if name]
        settings = {"GIT_CONFIG_COUNT": str(len(names))}
        for number, name in enumerate(names):
            settings[f"GIT_CONFIG_KEY_{number}"] = name
            settings[f"GIT_CONFIG_VALUE_{number}"] = "false" if name.endswith(".required") else ""
        return replace(self, environment={**self.environment, **settings})

    def git_directory(self) -> Path | None:
        """Return the Git directory of the repository; None if there is none."""
        found = self.line("rev-parse", "--absolute-git-dir")
        return Path(found) if found else None


def user_git(directory: Path, environ: Mapping[str, str]) -> UserGit:
    """Return git for the user's repository in a directory; ClaudeProxyError without a git."""
    real = Path(os.path.realpath(directory))
    given = [entry for entry in environ.get("PATH", "").split(":") if entry.startswith("/")]
    # Never a program of the project, which a run may have written.
    outside = [entry for entry in given if not Path(os.path.realpath(entry)).is_relative_to(real)]
    found = shutil.which("git", path=":".join((*outside, _SYSTEM_PATH)))
    if found is None:
        raise ClaudeProxyError("git is not installed", where="PATH", fix="install git")
    kept = {name: environ[name] for name in _PASSED if name in environ}
    # The same path for what git starts: filters, and programs that sign or verify.
    path = ":".join((*outside, _SYSTEM_PATH))
    return UserGit(
        found, directory, {**kept, "PATH": path, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    )
