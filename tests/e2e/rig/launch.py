"""Runs `claude-proxy run` as its users do: as root, or as somebody who is nobody."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from claude_proxy.system.runs import CONTROL
from tests.support.audit import Row, audit_rows
from tests.support.processes import has_ended
from tests.support.waiting import until

from .internet import Internet
from .proxy import REPOSITORY, Workplace

NOBODY = 65534
REACHABLE = Path(__file__).with_name("reachable.py")


class Launches:
    """A user with a home, a project and runs; nothing is shared with other tests."""

    def __init__(self, internet: Internet, allowlist: str, *, ordinary: bool) -> None:
        self.internet = internet
        self.ordinary = ordinary
        # Not pytest's own directory: no other user may enter that, and its paths are too long for
        # the name of a socket.
        self.directory = Path(tempfile.mkdtemp(prefix="run-"))
        self.directory.chmod(0o755)
        self.place = Workplace(internet, self.directory)
        self.runtime = self._made("runtime", mode=0o700)
        self.project = self._made("project")
        self.allowlist = self.directory / "allowlist.yaml"
        self.allowlist.write_text(allowlist, encoding="utf-8")
        self.root_file = Path(shutil.copy(internet.pki.root_file, self.directory))
        self._own(self.place.home)

    def _made(self, name: str, mode: int = 0o755) -> Path:
        path = self.directory / name
        path.mkdir()
        path.chmod(mode)
        self._own(path)
        return path

    def _own(self, path: Path) -> None:
        if self.ordinary and os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)

    def give(self, path: Path) -> Path:
        """Make the user the owner of a file or a tree that the test has made."""
        for found in (path, *path.rglob("*")):
            self._own(found)
        return path

    def environment(self, **variables: str) -> dict[str, str]:
        """Return what the user's shell hands on."""
        ours = {"XDG_RUNTIME_DIR": str(self.runtime), "PYTHONSAFEPATH": "1"}
        # What waits for a next request would be seen on the cable among what a test asked for.
        quiet = {"CLAUDE_PROXY_WARM_UPSTREAMS": "false"}
        return self.place.environment(**{**ours, **quiet, **variables})

    def argv(self, command: Sequence[str | Path], *, cwd: Path | None = None) -> list[str]:
        """Return the words that run a command as the user, on the host."""
        # Whoever starts the tests may ignore SIGHUP, which is inherited.
        words = ["env", "--default-signal=HUP", *(str(word) for word in command)]
        if self.ordinary:
            words = [*_as_ordinary_user(), *words]
        return self.internet.host.argv(words, cwd=cwd or self.project)

    def words(self, command: Sequence[str | Path], *options: str | Path) -> list[str | Path]:
        """Return the words of a `claude-proxy run`."""
        given: list[str | Path] = ["--allowlist", self.allowlist, "--upstream-ca", self.root_file]
        if "--proxy" in options:
            given = []  # that one has its own
        return [*self.program(), "run", *given, *options, "--", *command]

    @staticmethod
    def program() -> list[str | Path]:
        """Return the words that any command of ours begins with."""
        return [sys.executable, "-m", "claude_proxy"]

    def popen(self, words: Sequence[str | Path], **variables: str) -> "subprocess.Popen[bytes]":
        """Start something as the user, on the host; its streams are pipes."""
        return subprocess.Popen(
            self.argv(words),
            env=self.environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(
        self,
        *command: str | Path,
        options: Sequence[str | Path] = (),
        given: bytes | None = None,
        variables: Mapping[str, str] | None = None,
        timeout_s: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a sandbox to its end."""
        ran = subprocess.run(
            self.argv(self.words(command, *options)),
            env=self.environment(**(variables or {})),
            stdin=subprocess.DEVNULL if given is None else None,
            input=given,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        return subprocess.CompletedProcess(
            ran.args, ran.returncode, ran.stdout.decode(), ran.stderr.decode()
        )

    def start(
        self, *command: str | Path, options: Sequence[str | Path] = ()
    ) -> "subprocess.Popen[bytes]":
        """Start a command in a sandbox; its streams are pipes."""
        return self.popen(self.words(command, *options))

    def script(self, *command: str | Path, options: Sequence[str | Path] = ()) -> str:
        """Return a short line for a shell that starts a command in a sandbox."""
        path = self.directory / "run.sh"
        words = [str(word) for word in self.words(command, *options)]
        path.write_text(f"exec {shlex.join(words)}\n", encoding="utf-8")
        return f"sh {path}"

    def audit(self, *arguments: str) -> list[Row]:
        """Return what the user's audit log holds, oldest first."""
        return audit_rows(self.place.home / ".local" / "state" / "claude-proxy", *arguments)

    def left(self) -> list[str]:
        """Return the directories of runs that there are."""
        base = self.runtime / "claude-proxy"
        found = (path.name for path in base.glob("[!.]*") if path.name != CONTROL)
        return sorted(found) if base.exists() else []

    def helpers(self) -> dict[str, int]:
        """Return the processes of the user's one living run, by what they are."""
        found: dict[str, int] = {}
        mark = str(self.directory)
        for pid, words in _processes():
            environment = _environment_of(pid)
            if mark not in environment:
                continue
            line = " ".join(words)
            if "sandbox.proxy_process" in line:
                found["proxy"] = pid
            elif "sandbox.relay.relay" in line:
                found["relay"] = pid
            elif "claude_proxy run" in line:
                found["launcher"] = pid
        return found

    def kill(self, what: str) -> None:
        """Kill a process of the user's one living run, and return when it has ended."""
        pid = self.helpers()[what]
        os.kill(pid, signal.SIGKILL)
        until(lambda: has_ended(pid), f"the end of the {what}")

    def all_processes(self) -> list[int]:
        """Return every process that belongs to runs of this user."""
        mark = str(self.directory)
        return [
            pid
            for pid, words in _processes()
            if mark in _environment_of(pid) or any(mark in word for word in words)
        ]

    def close(self) -> None:
        """Remove all of it, when nothing of it runs any more."""
        try:
            until(lambda: not self.all_processes(), f"processes are left: {self.all_processes()}")
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


def trusted(launches: Launches, key: str = "") -> Launches:
    """Take Claude Code past its first questions, for this user's project."""
    settings = {
        "hasCompletedOnboarding": True,
        "customApiKeyResponses": {"approved": [key[-20:]] if key else [], "rejected": []},
        "theme": "dark",
        "projects": {str(launches.project): {"hasTrustDialogAccepted": True}},
    }
    file = launches.place.home / ".claude.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    launches.give(launches.place.home)
    return launches


def _as_ordinary_user() -> list[str]:
    """Return the words before a command that have an ordinary user run it."""
    if os.geteuid() != 0:
        # The tests' own user, who is root in the rig's namespace, is somebody again in one below.
        return ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--"]
    # What only root may enter (an interpreter in root's home) is made reachable by mounts that only
    # this command sees.
    paths = [sys.prefix, sys.base_prefix, str(REPOSITORY)]
    mounts = ["unshare", "--mount", sys.executable, "-I", str(REACHABLE), *paths, "--"]
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return [*mounts, "setpriv", *ids, "--"]


def _processes() -> list[tuple[int, list[str]]]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        found.append((int(path.name), [word.decode(errors="replace") for word in words]))
    return found


def _environment_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def notices(rows: Sequence[Row], kind: str) -> list[dict[str, Any]]:
    """Return the audit's notices of one kind."""
    return [dict(row.fields) for row in rows if row.fields.get("kind") == kind]
