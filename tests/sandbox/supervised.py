"""Sandboxes with a supervisor of their Unix sockets, but without proxy or relay."""

import contextlib
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from claude_proxy.sandbox import host_facts
from claude_proxy.sandbox.bubblewrap import seccomp
from claude_proxy.sandbox.bubblewrap.bwrap import Bubblewrap
from claude_proxy.sandbox.bubblewrap.seccomp import Reported
from claude_proxy.sandbox.helper_processes import SocketSupervisor, start_socket_supervisor
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import open_log
from tests.sandbox.boxes import Box


class SupervisedBox:
    """A box whose scripts run under the supervisor; `private`: with Unix sockets of their own."""

    def __init__(self, box: Box, directory: Path, *, private: bool) -> None:
        self.box = box
        self._directory = directory
        self._private = private

    @contextlib.contextmanager
    def started(
        self, *command: str, stdin: int = subprocess.DEVNULL, **changes: object
    ) -> Iterator[tuple[Bubblewrap, SocketSupervisor]]:
        """Start a command that waits for its release; its output is piped."""
        spec = self.box.spec(*command, **changes)
        plan = self.box.plan(spec)
        opened = open_log(self._directory, "tried")
        reported = Reported.SOCKETS if self._private else Reported.PAIRS
        with (
            opened.file,
            RunDirectory.make(["tried"], above=self._directory / "runtime") as run_directory,
            start_socket_supervisor(run_directory, opened) as supervisor,
            Bubblewrap.start(
                plan,
                seccomp.program(reported=reported),
                (stdin, subprocess.PIPE, subprocess.PIPE),
                functools.partial(supervisor.install, private=self._private),
            ) as bwrap,
        ):
            host_facts.check_mounts(plan, bwrap.init)
            if self._private:
                supervisor.enter(bwrap.init, unfiltered=spec.unfiltered)
            yield bwrap, supervisor
        assert opened.path.read_bytes() == b""

    def run(
        self,
        *command: str,
        meanwhile: Callable[[SocketSupervisor], object] = lambda _: None,
        stdin: int = subprocess.DEVNULL,
        **changes: object,
    ) -> str:
        """Return what a command prints; `meanwhile` is called before it starts."""
        with self.started(*command, stdin=stdin, **changes) as (bwrap, supervisor):
            meanwhile(supervisor)
            bwrap.release()
            out, err = bwrap.process.communicate(timeout=60)
            assert bwrap.process.returncode == 0, err.decode()
        return out.decode().strip()

    def python(
        self,
        script: str,
        meanwhile: Callable[[SocketSupervisor], object] = lambda _: None,
        stdin: int = subprocess.DEVNULL,
        **changes: object,
    ) -> str:
        """Return what a script prints."""
        python = (sys.executable, "-c", script)
        return self.run(*python, meanwhile=meanwhile, stdin=stdin, **changes)
