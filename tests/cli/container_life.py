"""A container that is known here, with a stand-in for its engine; for tests of the commands."""

from pathlib import Path

import pytest

from claude_proxy.cli.main import main
from tests.sandbox.container.test_store import kept
from tests.support.container_parts import Case, calls_of, fake_engine, inspected

GONE: Case = (["container", "inspect"], "", "Error: no such container web\n", 125)


def seen(status: str = "running", pid: int = 0) -> Case:
    """Return what the engine says of the container."""
    return (["container", "inspect"], inspected(status=status, pid=pid), "", 0)


class Life:
    """The commands of `container`, for containers whose engine answers as a test says."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statedir = directory / "state"
        self._bin = directory / "bin"
        self.program = self._bin / "podman"
        monkeypatch.setenv("PATH", f"{self._bin}:/usr/bin:/bin")
        monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(directory / "conf"))

    def know(self, *cases: Case) -> None:
        """Keep a container of which the engine says this."""
        fake_engine(self._bin, *cases)
        kept(self.statedir)

    def __call__(self, command: str, *words: str) -> int:
        """Run a command."""
        # Options go before --, and what is typed last must not become a part of CMD.
        return main(["container", command, "--statedir", str(self.statedir), *words])

    @property
    def called(self) -> list[list[str]]:
        """How the engine was called."""
        return calls_of(self.program)
