"""Runs `claude-proxy container` as its users do, with a storage that only the tests use."""

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from claude_proxy.sandbox.container import keeper_link, store
from tests.support.processes import has_ended
from tests.support.waiting import until

from .engine import EngineStorage
from .launch import NOBODY, Launches

BOX = "box"

_WITH_RANGES = """\
mount --bind "$1" /etc/subuid && mount --bind "$1" /etc/subgid && shift && exec "$@"
"""


class Containers:
    """The commands of `container` for one user."""

    def __init__(self, runs: Launches, storage: EngineStorage) -> None:
        self.runs, self.storage = runs, storage
        self.statedir = runs.place.home / ".local" / "state" / "claude-proxy"

    def words(self, command: str, *more: str | Path) -> list[str | Path]:
        """Return the words of one command."""
        given: Sequence[str | Path] = ()
        if command == "run":
            given = ["--allowlist", self.runs.allowlist, "--upstream-ca", self.runs.root_file]
        return [*self.runs.program(), "container", command, *given, *more]

    def argv(self, words: Sequence[str | Path]) -> list[str]:
        """Return the words that run a command as the user, who has user ids for containers."""
        argv = self.runs.argv(words)
        if not self.runs.ordinary:
            return argv
        # Only this command sees the file, after it has entered the rig's namespaces.
        at = argv.index("-C") + 2
        ranges = self.storage.directory / "ranges"
        ranges.write_text(f"{NOBODY}:200000:65536\n", encoding="utf-8")
        shown = ["unshare", "--mount", "sh", "-c", _WITH_RANGES, "sh", str(ranges)]
        return [*argv[:at], *shown, *argv[at:]]

    def environment(self, **variables: str) -> dict[str, str]:
        """Return what the user's shell hands on."""
        return self.runs.environment(**self.storage.variables, **variables)

    def __call__(
        self, command: str, *more: str | Path, given: str | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            self.argv(self.words(command, *more)),
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL if given is None else None,
            input=given,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def run(self, *more: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command in a container that removes itself."""
        return self("run", "--image", BOX, "--rm", *more)

    def start(self, name: str, *command: str) -> None:
        """Start a container in the background."""
        ran = self("run", "--image", BOX, "--name", name, "--detach", "--", *command)
        assert ran.returncode == 0, ran.stderr

    def popen(self, command: str, *more: str | Path) -> "subprocess.Popen[bytes]":
        """Start one command; its streams are pipes."""
        return subprocess.Popen(
            self.argv(self.words(command, *more)),
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def podman(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run podman itself, as the user."""
        return subprocess.run(
            self.argv([self.storage.podman, *words]),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def inside(self, name: str, script: str) -> str:
        """Run a shell script in a container and return what it prints."""
        done = self.podman("exec", name, "sh", "-c", script)
        return done.stdout + done.stderr

    def status(self, name: str) -> dict[str, Any]:
        """Return what the keeper of a container says."""
        found = keeper_link.ask(store.directory_of(self.statedir, name), "status")
        assert found is not None, f"{name} has no keeper"
        return dict(found)

    def kill(self, name: str, what: str) -> int:
        """Kill a helper of a container, or its keeper, with which the helpers end.

        Return the process, when all of it has ended.
        """
        found = self.status(name)
        helpers = found["helpers"]
        if what == "keeper":
            ending = [found["keeper"], *(pid for pids in helpers.values() for pid in pids)]
        else:
            ending = helpers[what][:1]
        os.kill(ending[0], signal.SIGKILL)
        until(lambda: all(map(has_ended, ending)), f"the end of the {what} of {name}")
        return int(ending[0])

    def wait_for_new(self, name: str, what: str, old: int) -> None:
        """Wait until a helper runs that is not the old one."""
        until(
            lambda: self.status(name)["helpers"][what] not in ([], [old]),
            f"another {what} of {name}",
        )

    def listed(self) -> dict[str, str]:
        """Return the containers and their states."""
        lines = self("list", "--json").stdout.splitlines()
        return {row["name"]: row["state"] for row in map(json.loads, lines)}

    def remove(self, *names: str) -> None:
        """Remove containers, whatever they do."""
        for name in names:
            self("rm", "--force", name)
