"""What the mount guard reports reaches the user at once and again at the end."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.bubblewrap import mount_guard
from claude_proxy.sandbox.guard_process import MountGuard

AT = "/home/ann/project/.envrc"


class Told:
    """A guard whose process only waits, and what it says."""

    def __init__(self, code: str = "import sys; sys.stdin.buffer.read()") -> None:
        until, lifeline = os.pipe()
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = os.memfd_create("generation")
        os.ftruncate(memory, os.sysconf("SC_PAGESIZE"))
        process = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdin=until)
        os.close(until)
        self.guard = MountGuard(process, lifeline, ours, memory, Path("/state/run.log"))
        os.close(memory)
        self.lines: list[str] = []
        self.guard.say = self.lines.append

    def report(self, *fields: str) -> None:
        self.theirs.send("\0".join(fields).encode())

    def replaced(self, *, kind: str = "read", known: str = "", count: int = 1) -> None:
        self.report(mount_guard.REPLACED, AT, kind, "1000000000", str(count), known)


@pytest.fixture
def told() -> Iterator[Told]:
    """A guard that has started."""
    made = Told()
    yield made
    made.guard.end()
    made.theirs.close()


def test_a_replaced_file_is_named_at_once_and_again_at_the_end(told: Told) -> None:
    told.replaced()
    assert told.guard.tell()
    assert len(told.lines) == 1
    assert told.lines[0].startswith(f"warning: {AT} was replaced outside at ")

    told.guard.finish()

    assert told.lines[1].startswith(f"warning: {AT} was replaced once during this run, last at ")


def test_content_that_is_as_before_is_no_warning(told: Told) -> None:
    told.replaced(known="known")
    told.guard.finish()

    assert [line.partition(":")[0] for line in told.lines] == ["note"]
    assert told.lines[0].endswith("its content is as before")


def test_a_hidden_file_could_be_read(told: Told) -> None:
    told.replaced(kind="hide")
    told.guard.tell()

    assert told.lines[0].endswith("for an instant the run could read it")


def test_a_file_that_appeared_is_a_warning_whatever_it_contains(told: Told) -> None:
    told.report(mount_guard.APPEARED, AT, "read", "1000000000", "1", "known")
    told.report(mount_guard.APPEARED, f"{AT}2", "hide", "1000000000", "1", "")
    told.guard.tell()

    assert told.lines[0].startswith(f"warning: {AT} appeared at ")
    assert "it is hidden now" in told.lines[1]


def test_a_file_that_is_replaced_often_is_counted(told: Told) -> None:
    for _ in range(5):
        told.replaced(count=200)
    told.guard.finish()

    assert len(told.lines) == 4
    assert "was replaced 1000 times during this run" in told.lines[-1]


def test_very_many_files_fit_a_screen(told: Told) -> None:
    for number in range(30):
        told.report(mount_guard.REPLACED, f"{AT}{number}", "read", "1000000000", "1", "")
    told.guard.tell()
    told.lines.clear()

    told.guard.finish()

    assert len(told.lines) == 21
    assert told.lines[-1] == "warning: and 10 more such files"


def test_what_cannot_be_protected_ends_the_run_and_says_where(told: Told) -> None:
    told.report(mount_guard.ENDED, AT, "it is a symbolic link now")
    told.guard.tell()

    assert told.guard.ended is not None
    assert told.guard.ended.where == AT
    assert told.guard.ended.what.endswith(": it is a symbolic link now")


def test_a_guard_that_is_gone_ends_the_run(told: Told) -> None:
    told.theirs.close()

    assert not told.guard.tell()
    told.guard.lost()

    assert told.guard.ended is not None
    assert told.guard.ended.where == f"process {told.guard.pid}"  # its log does not exist


def test_a_guard_that_does_not_start_is_an_error_and_nothing_is_run() -> None:
    told = Told("pass")
    told.theirs.close()

    with pytest.raises(ClaudeProxyError, match="nothing was run"):
        told.guard.watch()


def test_a_guard_that_watches_is_waited_for(told: Told) -> None:
    told.theirs.send(mount_guard.READY)

    told.guard.watch()

    assert told.guard.alive
