"""The stopper stops everything when a name that is guarded changes, and only then."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from claude_proxy.sandbox.bubblewrap import mount_calls, stopper
from tests.conftest import FindProgram

CREATE, OVERFLOW = 0x100, 0x4000

# One process namespace with a stopper and a process that it may stop. It is told to put a file
# somewhere, and says whether the other was stopped.
STOPPING = """\
import os, signal, socket, subprocess, sys
from pathlib import Path
from claude_proxy.sandbox.bubblewrap import mount_calls, stopper
from claude_proxy.sandbox.bubblewrap.stop_generation import StopGeneration
watched = Path(sys.argv[1])
os.chdir("/proc")
events = mount_calls.new_watches()
mount_calls.watch(events, os.open(watched, os.O_PATH), 0x3c0)
memory = os.memfd_create("x")
os.ftruncate(memory, 4096)
generation = StopGeneration(memory)
other = subprocess.Popen(["sleep", "1000"])
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
child = os.fork()
if child == 0:
    ours.close()
    mounts = os.open("self/mountinfo", os.O_RDONLY)
    stopper.run(events, mounts, theirs, generation, frozenset({b".envrc"}))
    os._exit(0)
theirs.close()
assert int(ours.recv(64)) == child
"""


@pytest.fixture
def inside(program: FindProgram) -> list[str]:
    """Return the words that run a script in a process namespace of its own."""
    unshare = program("unshare")
    flags = ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"]
    # The first process is left out by kill(2), like bwrap's.
    return [unshare, *flags, sys.executable, "-c"]


def run(command: list[str], script: str, watched: Path) -> list[str]:
    done = subprocess.run(
        [*command, STOPPING + script, str(watched)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_guarded_name_stops_what_runs_until_it_is_continued(
    inside: list[str], tmp_path: Path
) -> None:
    said = run(
        inside,
        """
(watched / ".envrc").touch()
print(ours.recv(64), generation.value)
print(os.WIFSTOPPED(os.waitpid(other.pid, os.WUNTRACED)[1]))
ours.send(stopper.ARM)
print(ours.recv(64))
ours.send(stopper.CONTINUE + b" %d" % other.pid)
print(os.WIFCONTINUED(os.waitpid(other.pid, os.WCONTINUED)[1]))
(watched / "other").touch()
(watched / ".envrc").unlink()
print(ours.recv(64), generation.value)
""",
        tmp_path,
    )

    assert said == ["b'stopped' 1", "True", "b'arm'", "True", "b'stopped' 3"]


def test_a_ctrl_z_outlasts_the_stop(inside: list[str], tmp_path: Path) -> None:
    said = run(
        inside,
        """
# In a group of its own, as a shell's job is: one that nobody waits for is not stopped by a key.
job = subprocess.Popen(["sleep", "1000"], process_group=0)
(watched / ".envrc").touch()
ours.recv(64)
os.waitpid(job.pid, os.WUNTRACED)
job.send_signal(signal.SIGTSTP)
ours.send(stopper.CONTINUE + b" %d:%d" % (job.pid, signal.SIGTSTP))
print(signal.Signals(os.WSTOPSIG(os.waitpid(job.pid, os.WUNTRACED)[1])).name)
""",
        tmp_path,
    )

    assert said == ["SIGTSTP"]


def test_it_ends_when_the_guard_does(inside: list[str], tmp_path: Path) -> None:
    said = run(inside, "ours.close(); print(os.waitpid(child, 0)[1])", tmp_path)

    assert said == ["0"]


def test_signals_that_can_be_ignored_are(inside: list[str], tmp_path: Path) -> None:
    said = run(
        inside,
        """
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGTSTP):
    os.kill(child, number)
(watched / ".envrc").touch()
print(ours.recv(64))
""",
        tmp_path,
    )

    assert said == ["b'stopped'"]


def event(watch: int, mask: int, name: bytes) -> bytes:
    padded = name + b"\0" * (16 - len(name)) if name else b""
    return struct.pack("iIII", watch, mask, 0, len(padded)) + padded


def test_events_are_read_as_the_kernel_writes_them() -> None:
    data = event(1, CREATE, b".envrc") + event(2, CREATE, b"") + event(-1, OVERFLOW, b"")

    assert stopper.parsed(data) == [
        (1, CREATE, b".envrc"),
        (2, CREATE, b""),
        (-1, OVERFLOW, b""),
    ]


@pytest.mark.parametrize("rest", [b"", b"x", event(3, CREATE, b"abc")[:-4]])
def test_events_that_are_cut_short_are_no_error(rest: bytes) -> None:
    assert stopper.parsed(event(1, CREATE, b"a") + rest)[0] == (1, CREATE, b"a")


def test_an_overflow_is_seen() -> None:
    assert stopper.overflowed(event(1, CREATE, b"a") + event(-1, OVERFLOW, b""))
    assert not stopper.overflowed(event(1, CREATE, b"a"))


def test_real_events_contain_the_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc")
    events = mount_calls.new_watches()
    directory = os.open(tmp_path, os.O_PATH)
    watch = mount_calls.watch(events, directory, CREATE)

    (tmp_path / "name").touch()

    assert stopper.parsed(os.read(events, 4096)) == [(watch, CREATE, b"name")]
    os.close(directory)
    os.close(events)
