"""A sandbox whose launcher is gone is killed."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.sandbox.bubblewrap import watchdog

SCRIPT = watchdog.__file__


class Guarded:
    """A guard, a pipe like the one that holds COMMAND back, and somebody who waits at it."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reading, writing = os.pipe()
        self.gate = os.open(f"/proc/self/fd/{reading}", os.O_RDWR)
        os.close(reading)
        os.close(writing)
        with theirs:
            self.guard = subprocess.Popen(
                [sys.executable, "-I", "-S", SCRIPT, str(theirs.fileno()), str(self.gate)],
                pass_fds=[theirs.fileno(), self.gate],
            )
        self.waiting = subprocess.Popen(["sleep", "600"], pass_fds=[self.gate])
        self.other = subprocess.Popen(["sleep", "600"])
        os.close(self.gate)

    def tell(self) -> int:
        """Tell the guard whom it guards, as a launcher does; return the descriptor."""
        descriptor = os.pidfd_open(self.waiting.pid)
        socket.send_fds(self.ours, [b"init"], [descriptor])
        assert self.ours.recv(16) == b"seen"
        return descriptor

    def close(self) -> None:
        """End all of it."""
        self.ours.close()
        for process in (self.waiting, self.other, self.guard):
            process.kill()
            process.wait()


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    """A watchdog that has received nothing yet."""
    guarded = Guarded()
    yield guarded
    guarded.close()


def test_a_sandbox_is_killed_when_its_launcher_is_gone(guarded: Guarded) -> None:
    os.close(guarded.tell())

    guarded.ours.close()

    assert guarded.waiting.wait(60) == -signal.SIGKILL
    assert guarded.guard.wait(60) == 0
    assert guarded.other.poll() is None


def test_a_launcher_that_ends_before_the_answer_counts_as_gone(guarded: Guarded) -> None:
    descriptor = os.pidfd_open(guarded.waiting.pid)
    socket.send_fds(guarded.ours, [b"init"], [descriptor])
    os.close(descriptor)

    guarded.ours.close()

    assert guarded.waiting.wait(60) == -signal.SIGKILL
    assert guarded.guard.wait(60) == 0


def test_a_launcher_that_ends_with_the_answer_unread_counts_as_gone(guarded: Guarded) -> None:
    descriptor = os.pidfd_open(guarded.waiting.pid)
    socket.send_fds(guarded.ours, [b"init"], [descriptor])
    os.close(descriptor)
    assert select.select([guarded.ours], [], [], 60)[0]

    guarded.ours.close()

    assert guarded.waiting.wait(60) == -signal.SIGKILL
    assert guarded.guard.wait(60) == 0


def test_a_sandbox_without_a_known_pid_is_found_by_its_pipe(guarded: Guarded) -> None:
    guarded.ours.close()

    assert guarded.waiting.wait(60) == -signal.SIGKILL
    assert guarded.guard.wait(60) == 0
    assert guarded.other.poll() is None


def test_the_watchdog_ends_with_the_sandbox(guarded: Guarded) -> None:
    with open(guarded.tell(), "rb", buffering=0) as descriptor:  # noqa: PTH123 - a descriptor
        guarded.waiting.kill()
        assert select.select([descriptor], [], [], 60)[0]

    guarded.waiting.wait()
    assert guarded.guard.wait(60) == 0


def test_a_pipe_that_was_not_passed_on_has_no_other_holder() -> None:
    reading, writing = os.pipe()
    try:
        assert watchdog.holders(reading) == []
    finally:
        os.close(reading)
        os.close(writing)


def test_the_watchdog_needs_no_package_and_no_environment() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, Path(os.devnull).open("rb") as gate:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", SCRIPT, str(theirs.fileno()), str(gate.fileno())],
            pass_fds=[theirs.fileno(), gate.fileno()],
            cwd="/",
            env={},
        )
    ours.close()

    assert process.wait(60) == 0
