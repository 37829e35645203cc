"""Git commands on the host's repository that run nothing: no hook, monitor, filter or transport.

Law kept: the sandbox cannot move its own wall. The repository's own settings are read, because they
say in which format it is; the user's and the system's are not, and neither is a variable.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass

_PLACES = "/usr/bin:/usr/local/bin:/bin:/opt/homebrew/bin:/run/current-system/sw/bin"
_PATIENCE_S = 600.0
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.splitIndex=false",
    "core.attributesFile=/dev/null",
    "core.pager=cat",
    "core.editor=false",
    "fetch.fsckObjects=true",
    "transfer.fsckObjects=true",
    "fetch.writeCommitGraph=false",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "protocol.file.allow=always",
    # One of its own goes before `protocol.allow`, and a nested repository may be an agent's work.
    *(f"protocol.{name}.allow=never" for name in ("ext", "fd", "git", "http", "https", "ssh")),
    "core.alternateRefsCommand=true",
    "log.showSignature=false",
    "safe.directory=*",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command of git printed, and whether it succeeded."""

    code: int
    out: bytes
    err: str

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.code == 0

    @property
    def reason(self) -> str:
        """Its last message, in one line that is safe to print."""
        lines = [line for line in self.err.splitlines() if line.strip()] or [f"exit {self.code}"]
        text = lines[-1].removeprefix("fatal: ").removeprefix("error: ")
        return "".join(c if c.isprintable() else "?" for c in text)[:300]


class HostGit:
    """Runs git on one repository of the host, or on one that was made here."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(
        self,
        *words: str,
        stdin: bytes = b"",
        index: Path | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> Answer:
        """Run a command; one that cannot be started, or takes too long, has failed."""
        program = find_git()
        if program is None:
            return Answer(127, b"", "git is not installed")
        command = [program, *options_for(self.directory)]
        try:
            done = subprocess.run(  # noqa: S603 - git, with settings that make it run nothing
                [*command, *words],
                input=stdin,
                capture_output=True,
                check=False,
                cwd="/",
                env=environment(index),
                timeout=patience_s,
            )
        except subprocess.TimeoutExpired:
            return Answer(124, b"", f"git {words[0]} took longer than {patience_s:.0f} s")
        except OSError as error:
            return Answer(127, b"", f"git cannot be started: {error.strerror}")
        return Answer(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))


def find_git() -> str | None:
    """Return the path of git; None if there is none in the directories of the system."""
    return shutil.which("git", path=_PLACES)


def options_for(directory: Path) -> list[str]:
    """Return the options by which git works on one repository and runs nothing."""
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    return [*settings, "--no-replace-objects", f"--git-dir={directory}"]


def environment(index: Path | None = None) -> Mapping[str, str]:
    """Return the environment of such a command."""
    found = {
        "PATH": _PLACES,
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "file",
        "GIT_COMMITTER_NAME": "claude-proxy",
        "GIT_COMMITTER_EMAIL": "claude-proxy@localhost",
    }
    return found if index is None else {**found, "GIT_INDEX_FILE": str(index)}
