"""COMMAND is waited for as a shell waits for a job, on its own terminal."""

import os
import pty
import re
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
LONG_S = 60.0

# What a shell with job control does for one job, told on its terminal.
JOB = """
import os, signal, subprocess, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
words = sys.argv[1:]
job = subprocess.Popen(words, process_group=0)
os.tcsetpgrp(0, job.pid)
while True:
    pid, status = os.waitpid(job.pid, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        break
    print("job stopped", flush=True)
    if input() != "fg":
        break
    os.tcsetpgrp(0, job.pid)
    os.killpg(job.pid, signal.SIGCONT)
print("job ended", os.waitstatus_to_exitcode(status), flush=True)
"""


class Job:
    """A run as a job of a shell, on a pseudo terminal."""

    def __init__(self, directory: Path, *command: str, options: tuple[str, ...] = ()) -> None:
        project = directory / "project"
        project.mkdir()
        (project / ".envrc").write_text("old")  # protected, so there is a guard
        (directory / "runtime").mkdir(mode=0o700)
        words = [sys.executable, "-m", "claude_proxy", "run", "--no-network", *options, "--"]
        environment = {
            "HOME": str(directory),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "TERM": "dumb",
            "XDG_RUNTIME_DIR": str(directory / "runtime"),
        }
        self.said = b""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(project)
            shell = [sys.executable, "-c", JOB, *words, *command]
            os.execve(sys.executable, shell, environment)

    def says(self, text: str) -> None:
        """Wait until a text has come, and forget what came before it."""
        wanted = re.compile(text.encode())
        deadline = time.monotonic() + LONG_S
        while not (found := wanted.search(self.said)):
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self.terminal], [], [], left)[0], self.said
            assert self._read(), self.said
        self.said = self.said[found.end() :]

    def interrupt_until(self, text: str) -> None:
        """Press Ctrl-C until a text comes.

        dash loses one that comes while it makes a process, or just before it waits for a line.
        """
        deadline = time.monotonic() + LONG_S
        while text.encode() not in self.said:
            assert time.monotonic() < deadline, self.said
            self.type("\x03")
            while text.encode() not in self.said:
                if not select.select([self.terminal], [], [], 5)[0] or not self._read():
                    break

    def _read(self) -> bool:
        """Take in what has come; False: nobody has the terminal any more."""
        try:
            self.said += os.read(self.terminal, 4096)
        except OSError:
            return False
        return True

    def type(self, text: str) -> None:
        """Type some text."""
        os.write(self.terminal, text.encode())

    def launcher(self) -> int:
        """Return the process of `claude-proxy run`."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii")
        return int(children.split()[0])

    def close(self) -> None:
        """End all of it."""
        os.close(self.terminal)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def directory(program: FindProgram) -> Iterator[Path]:
    """A home."""
    program("bwrap")
    with tempfile.TemporaryDirectory(prefix="job-") as name:
        yield Path(name)


@pytest.fixture
def job(directory: Path, request: pytest.FixtureRequest) -> Iterator[Job]:
    """The job that a test names."""
    command, *options = request.param
    job = Job(directory, "sh", "-c", command, options=tuple(options))
    yield job
    job.close()


def running(command: str, *options: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("job", [(command, *options)], indirect=True, ids=["job"])


@running("echo begun; exec cat")
def test_a_command_that_ctrl_z_stops_continues_in_the_foreground(job: Job) -> None:
    job.says("begun")
    job.type("\x1a")
    job.says("job stopped")
    job.type("fg\n")
    job.says("fg")
    job.type("and on\n")
    job.says("and on\r\nand on")
    job.type("\x04")

    job.says("job ended 0")


@running("echo begun; kill -STOP $$; echo went on; exit 4")
def test_a_command_that_stops_itself_is_followed(job: Job) -> None:
    job.says("begun")
    job.says("job stopped")
    job.type("fg\n")
    job.says("went on")

    job.says("job ended 4")


@running("trap '' TSTP; echo begun; read line; exit 6")
def test_a_command_that_ignores_ctrl_z_is_not_stopped(job: Job) -> None:
    job.says("begun")
    job.type("\x1a")
    job.type("\n")

    job.says("job ended 6")


@running("trap 'echo caught; exit 5' INT; echo begun; while :; do read line; done")
def test_a_command_may_handle_ctrl_c(job: Job) -> None:
    job.says("begun")

    job.interrupt_until("caught")
    job.says("job ended 5")


@running("echo begun; sleep 600")
def test_a_command_that_does_not_handle_ctrl_c_ends_with_130(job: Job) -> None:
    job.says("begun")

    job.interrupt_until("job ended 130")


def pending(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text("ascii")
    return int(re.findall(r"^ShdPnd:\s*([0-9a-f]+)$", status, re.MULTILINE)[0], 16)


# Counts how often it was interrupted. A handler alone would miss a signal that comes just before a
# call that blocks; the descriptor is written to whenever one comes.
COUNTING = """\
import os, select, signal
coming, wakeup = os.pipe()
os.set_blocking(wakeup, False)
signal.set_wakeup_fd(wakeup)
signal.signal(signal.SIGINT, lambda *_: None)
print("begun", flush=True)
caught = 0
while True:
    ready = select.select([0, coming], [], [])[0]
    if coming in ready:
        caught += len(os.read(coming, 16))
        print("caught", caught, flush=True)
    elif not os.read(0, 16):
        break
    else:
        print("in all", caught, flush=True)
"""


@running(f"exec /usr/bin/python3 -c '{COUNTING}'")
def test_a_key_reaches_command_once_and_a_signal_to_the_launcher_too(job: Job) -> None:
    job.says("begun")
    job.type("\x03")
    job.says("caught 1")
    # Two of a kind are one, until the launcher has looked.
    until(lambda: pending(job.launcher()) == 0, "the launcher to look at the first")
    os.kill(job.launcher(), signal.SIGINT)
    job.says("caught 2")
    job.type("\n")

    job.says("in all 2")
    job.type("\x04")
    job.says("job ended 0")


@running("echo begun; sleep 600", "--without-seccomp")
def test_a_key_reaches_command_once_in_its_own_session(job: Job) -> None:
    job.says("begun")

    job.interrupt_until("job ended 130")


@running("stty raw; echo begun; kill -9 $$")
def test_a_terminal_is_left_as_it_was_found(job: Job) -> None:
    job.says("begun")
    job.says("job ended 137")

    # With raw modes left, a line would end in a line feed alone.
    assert b"\r\n" in job.said or select.select([job.terminal], [], [], LONG_S)[0]


@running("echo begun; exec cat")
def test_a_stop_by_the_mount_guard_is_not_taken_for_ctrl_z(job: Job, directory: Path) -> None:
    job.says("begun")
    project = directory / "project"

    for number in range(3):
        (project / "new").write_text(str(number))
        (project / "new").rename(project / ".envrc")
    job.says(r"\.envrc was replaced outside at ")
    job.type("and on\n")

    job.says("and on\r\nand on")
    job.type("\x04")
    job.says("job ended 0")


@running("echo begun; exec cat")
def test_a_job_that_ctrl_z_stopped_stays_stopped_while_the_host_works(
    job: Job, directory: Path
) -> None:
    job.says("begun")
    job.type("\x1a")
    job.says("job stopped")

    project = directory / "project"
    for number in range(3):
        (project / "new").write_text(str(number))
        (project / "new").rename(project / ".envrc")
    job.type("fg\n")
    job.says("fg")
    job.says(r"\.envrc was replaced outside at ")
    job.type("and on\n")

    job.says("and on\r\nand on")
    job.type("\x04")
    job.says("job ended 0")
