"""Each terminal concerned is told when everything is open, while it lasts and when it is over."""

import os
import pty
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import cast

import pytest

from claude_proxy.config.settings import InheritedListen, RunIdentity
from claude_proxy.control import present
from claude_proxy.control.grants_in_force import Changes, Ended
from claude_proxy.policy.grants import SECOND_NS, End, Grant, GrantedRun, GrantKind, everything
from claude_proxy.proxy.connection import Services
from claude_proxy.sandbox import run_directory
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.server.grant_notices import GrantNotices
from claude_proxy.server.prepared import Prepared


def opened(number: int = 1, run: GrantedRun | None = None, project: str | None = None) -> Grant:
    now = present.now()
    return Grant(
        *(number, (everything(),), now.wall_ns, now, "alice", "why\x1b[2J", GrantKind.OPEN),
        *(run, project, 3600 * SECOND_NS),
    )


@dataclass
class Terminal:
    """A terminal of a run."""

    master: int
    name: str

    def said(self) -> str:
        return os.read(self.master, 65536).decode()

    def is_silent(self) -> bool:
        os.set_blocking(self.master, False)
        try:
            return not os.read(self.master, 1)
        except BlockingIOError:
            return True
        finally:
            os.set_blocking(self.master, True)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    yield Terminal(master, os.ttyname(slave))
    os.close(master)
    os.close(slave)


@pytest.fixture
def base() -> Iterator[Path]:
    with TemporaryDirectory(prefix="notices-") as found:
        yield Path(found) / "runs"


class House:
    """A proxy as far as notices know it, and a clock."""

    def __init__(self, base: Path, *runs: str) -> None:
        self.lines: list[str] = []
        self.time = 0.0
        self.connections: list[object] = []
        self.speaks = True
        listen = tuple(InheritedListen(0, "run", RunIdentity(name, "sh")) for name in runs)
        prepared = SimpleNamespace(
            settings=SimpleNamespace(listen=listen, runs=base),
            slot=SimpleNamespace(speaks=True),
            report=self.lines.extend,
        )
        services = SimpleNamespace(connections=self.connections)
        self.notices = GrantNotices(
            cast("Prepared", prepared), cast("Services", services), lambda: self.time
        )

    def joins(self, run: str) -> None:
        info = SimpleNamespace(run=run)
        self.connections.append(SimpleNamespace(session=SimpleNamespace(client_info=info)))


def test_a_proxy_tells_its_own_terminal_once_a_minute(base: Path) -> None:
    house, grant = House(base), opened()

    for house.time in (0.0, 1.0, 59.0, 61.0):
        house.notices.tell(Changes(), [grant])
    house.notices.tell(Changes(ended=(Ended(grant, End.CLOSED),)), [])
    house.notices.tell(Changes(), [])

    assert [line.split(" ")[0] for line in house.lines] == ["OPEN", "STILL", "CLOSED"]
    assert "\x1b" not in house.lines[0]


def test_the_terminal_of_a_run_is_told(
    base: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_directory, "_terminal", lambda: terminal.name)
    with RunDirectory.make(("sh",), name="build", above=base):
        house = House(base, "build")
        house.notices.tell(Changes(), [opened()])
        first = terminal.said()
        house.notices.tell(Changes(), [])

        assert first.startswith("\rclaude-proxy: OPEN")
        assert first.endswith("\r\n")
        assert "CLOSED (time-over)" in terminal.said()
    assert house.lines == []


def test_a_run_that_joined_is_told_what_is_for_it_alone(
    base: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_directory, "_terminal", lambda: terminal.name)
    with RunDirectory.make(("sh",), name="joined", above=base, project=Path("/code")) as run:
        house = House(base)
        house.joins("joined")
        house.notices.tell(Changes(), [opened(1, GrantedRun("joined", "joined.other"))])
        assert terminal.is_silent()

        house.notices.tell(Changes(), [opened(2, GrantedRun("joined", run.path.name))])

        assert "for run joined" in terminal.said()
    assert house.lines == []


def test_what_is_no_terminal_is_not_written_to(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setattr(run_directory, "_terminal", lambda: str(file))
    with RunDirectory.make(("sh",), name="build", above=base):
        House(base, "build").notices.tell(Changes(), [opened()])

    assert file.read_text() == ""
