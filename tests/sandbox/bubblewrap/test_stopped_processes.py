"""Processes of a stopped sandbox: what still runs, and what is open past a protection, is seen."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.sandbox.bubblewrap import mount_calls
from claude_proxy.sandbox.bubblewrap.stopped_processes import StoppedProcesses
from tests.support.waiting import until

OPEN = "import os, sys; f = os.open(sys.argv[1], os.O_RDONLY); print(flush=True); sys.stdin.read()"
IN_IT = "import os, sys; os.chdir(sys.argv[1]); print(flush=True); sys.stdin.read()"
MAPPED = """\
import mmap, os, sys
f = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(f, 1, prot=mmap.PROT_READ)
os.close(f)
print(flush=True)
sys.stdin.read()
"""
ON_ITS_WAY = """\
import os, socket, sys
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
f = os.open(sys.argv[1], os.O_RDONLY)
socket.send_fds(a, [b"x"], [f])
os.close(f)
print(flush=True)
sys.stdin.read()
"""

FORKING = """\
import ctypes, signal, sys
print(flush=True)
if ctypes.CDLL(None).syscall(56, 0x4000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:  # as vfork(2)
    sys.stdin.read()
"""


class Only(StoppedProcesses):
    """Looks at one process of this machine."""

    def __init__(self, proc: int, pid: int) -> None:
        super().__init__(proc, ())
        self._one = pid

    def pids(self) -> list[int]:
        return [self._one]


@pytest.fixture
def proc(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The directory of processes, which is the working directory as well."""
    monkeypatch.chdir("/proc")
    descriptor = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def holder(script: str, path: Path) -> "subprocess.Popen[bytes]":
    """Start a process that has something open, and return when it has."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    """A file that is guarded."""
    path = tmp_path / "entry"
    path.write_text("content")
    return path


@pytest.mark.parametrize("script", [OPEN, MAPPED, ON_ITS_WAY])
def test_what_a_process_has_open_past_the_protection_is_found(
    proc: int, entry: Path, script: str
) -> None:
    with holder(script, entry) as process:
        found = Only(proc, process.pid).held({str(entry): {}})
        process.kill()

    assert found == str(entry)


def test_a_directory_in_which_a_process_works_is_found(proc: int, tmp_path: Path) -> None:
    with holder(IN_IT, tmp_path) as process:
        found = Only(proc, process.pid).held({str(tmp_path): {}})
        process.kill()

    assert found == str(tmp_path)


def test_what_is_open_by_the_protection_itself_is_not_found(proc: int, tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_PATH)
    mount = mount_calls.mount_of(directory)
    os.close(directory)

    with holder(IN_IT, tmp_path) as process:
        found = Only(proc, process.pid).held({f"{tmp_path}/entry": {str(tmp_path): mount}})
        process.kill()

    assert found is None


def test_a_private_mapping_counts_if_the_entry_is_hidden(proc: int) -> None:
    library = Path(os.path.realpath("/proc/self/exe"))
    here = Only(proc, os.getpid())

    assert here.held({str(library): {}}, hidden=[str(library)]) == str(library)
    assert here.held({str(library): {}}) is None


def test_a_process_that_runs_is_seen_until_it_is_stopped(proc: int, entry: Path) -> None:
    with holder(OPEN, entry) as process:
        found = Only(proc, process.pid)
        assert found.running()

        process.send_signal(signal.SIGSTOP)

        until(lambda: not found.running(), "that it is stopped")
        process.kill()


def test_a_ctrl_z_that_comes_while_a_process_is_stopped_is_seen(proc: int, entry: Path) -> None:
    with holder(OPEN, entry) as process:
        found = Only(proc, process.pid)
        process.send_signal(signal.SIGSTOP)
        until(lambda: not found.running(), "that it is stopped")
        before = found.stops_of(process.pid)
        process.send_signal(signal.SIGTSTP)

        assert (before, found.stops_of(process.pid)) == ([], [signal.SIGTSTP])
        process.kill()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of a system call")
def test_a_process_that_waits_for_the_child_that_it_has_just_forked_counts_as_stopped(
    proc: int, tmp_path: Path
) -> None:
    """It cannot run before its child does, whatever signal it gets."""
    with holder(FORKING, tmp_path) as process:
        found = Only(proc, process.pid)

        until(lambda: not found.running(), "that it waits for its child")
        process.kill()


def test_what_was_suspended_before_the_stop_is_not_continued(proc: int, entry: Path) -> None:
    with holder(OPEN, entry) as process:
        found = Only(proc, process.pid)
        process.send_signal(signal.SIGSTOP)
        until(lambda: not found.running(), "that it is suspended")
        process.send_signal(signal.SIGSTOP)  # the guard's

        assert found.suspended() == {process.pid}
        assert found.to_continue(found.suspended()) == []
        process.kill()


def test_what_a_second_stop_signal_has_reached_is_continued(proc: int, entry: Path) -> None:
    with holder(OPEN, entry) as process:
        found = Only(proc, process.pid)
        process.send_signal(signal.SIGSTOP)
        until(lambda: not found.running(), "that it is stopped")
        suspended = found.suspended()
        process.send_signal(signal.SIGSTOP)  # as the guard does where something inside goes on

        assert found.to_continue(suspended) == [process.pid]
        process.kill()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of a system call")
def test_a_process_that_waits_for_its_forked_child_is_continued(proc: int, tmp_path: Path) -> None:
    """It cannot take the signal, which stays pending as if the process had been suspended."""
    with holder(FORKING, tmp_path) as process:
        found = Only(proc, process.pid)
        until(lambda: not found.running(), "that it waits for its child")
        process.send_signal(signal.SIGSTOP)

        assert found.suspended() == set()
        assert found.to_continue(found.suspended()) == [process.pid]
        process.kill()


def test_children_are_continued_before_their_parents(proc: int) -> None:
    class Both(StoppedProcesses):
        def pids(self) -> list[int]:
            return [os.getppid(), os.getpid()]

    assert Both(proc, ()).to_continue() == [os.getpid(), os.getppid()]


def test_the_first_process_and_the_stopper_are_left_out(proc: int) -> None:
    found = StoppedProcesses(proc, (os.getpid(),)).pids()

    assert os.getppid() in found
    assert not {1, os.getpid()} & set(found)


def test_an_empty_socket_is_no_reason_to_end_a_run(proc: int, entry: Path) -> None:
    one, other = socket.socketpair()
    with one, other:
        assert Only(proc, os.getpid()).held({str(entry): {}}) is None
