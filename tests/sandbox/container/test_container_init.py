"""A relay as the first process: CMD's signals and exit code, and orphaned processes."""

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.sandbox.container import container_init
from claude_proxy.sandbox.container.container_init import FORWARDED
from tests.conftest import FindProgram
from tests.support.waiting import until

WAIT_S = 30
ASK = (
    "import socket,sys; c = socket.create_connection(('127.0.0.1', 3128));"
    "c.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n'); print(c.recv(99).split()[1].decode())"
)


@pytest.fixture
def boxed(program: FindProgram, tmp_path: Path) -> list[str]:
    """The beginning of a command line: the first process of namespaces of its own."""
    box = [program("bwrap"), "--unshare-user", "--unshare-net", "--unshare-pid", "--as-pid-1"]
    view = ["--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--die-with-parent"]
    words = [sys.executable, "-I", "-S", container_init.__file__]
    relay = ["--listen", "127.0.0.1:3128", "--to", f"unix:{tmp_path}/way-out.sock", "--"]
    return [*box, *view, "--", *words, *relay]


def ran(words: list[str]) -> tuple[int, str, str]:
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=WAIT_S)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.fixture
def way_out() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(WAIT_S)
        yield listener


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill $$", 143)]
)
def test_the_exit_code_is_that_of_cmd(boxed: list[str], script: str, code: int) -> None:
    assert ran([*boxed, "sh", "-c", script]) == (code, "", "")


@pytest.mark.parametrize(("command", "code"), [("/no/such", 127), ("/etc", 126)])
def test_a_cmd_that_cannot_start_says_so(boxed: list[str], command: str, code: int) -> None:
    found, out, err = ran([*boxed, command])

    assert (found, out) == (code, "")
    assert err.startswith(f'claude-proxy: error: cannot start "{command}" (')
    assert "fix:" in err


def test_it_is_the_first_process_and_collects_orphans(boxed: list[str]) -> None:
    orphans = "(sh -c 'exit 3' &); (sh -c 'exit 4' &)"
    zombies = "grep -lq '^State:.Z' /proc/[0-9]*/status"
    # At most some seconds: a zombie that nobody collects stays.
    wait = f"n=0; while {zombies} && [ $n -lt 99 ]; do n=$((n+1)); sleep 0.1; done 2>/dev/null"
    script = f"tr '\\0' ' ' < /proc/1/cmdline; {orphans}; sleep 0.1; {wait}; {zombies} 2>/dev/null"

    code, out, _ = ran([*boxed, "sh", "-c", script])

    assert "container_init.py" in out
    assert code == 1  # grep found none


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGQUIT])
def test_every_signal_goes_to_cmd(boxed: list[str], number: int, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = (
        f"trap 'exit 9' {signal.Signals(number).name.removeprefix('SIG')}; "
        f"echo > {ready}; while :; do sleep 0.05; done"
    )
    with subprocess.Popen([*boxed, "sh", "-c", script]) as process:
        until(ready.exists, "CMD to run")
        first = child_of(process.pid)

        os.kill(first, number)

        assert process.wait(WAIT_S) == 9


def child_of(pid: int) -> int:
    """Return the first process inside of a bwrap that waits for it."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()[0])


def test_signals_that_are_its_own_are_not_passed_on() -> None:
    assert signal.SIGCHLD not in FORWARDED
    assert signal.SIGSEGV not in FORWARDED
    assert {signal.SIGWINCH, signal.SIGCONT, signal.SIGHUP, signal.SIGRTMIN} <= {*FORWARDED}


def test_cmd_has_the_terminal(boxed: list[str]) -> None:
    ours, theirs = pty.openpty()
    code = "import os; print(os.tcgetpgrp(0) == os.getpgrp(), os.getpid() == os.getpgrp())"
    words = [*boxed, sys.executable, "-c", code]

    def leads() -> None:
        os.setsid()
        import fcntl  # noqa: PLC0415
        import termios  # noqa: PLC0415

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with subprocess.Popen(
        words,
        stdin=theirs,
        stdout=subprocess.PIPE,
        preexec_fn=leads,  # noqa: PLW1509 - no threads here
        text=True,
    ) as process:
        out, _ = process.communicate(timeout=WAIT_S)
    os.close(ours)
    os.close(theirs)

    assert out == "True True\n"


def test_clients_reach_the_outside_again_when_it_is_back(
    boxed: list[str], way_out: socket.socket, tmp_path: Path
) -> None:
    script = 'python=$0; "$python" -c "$1"; read -r line; "$python" -c "$1"'
    with subprocess.Popen(
        [*boxed, "sh", "-c", script, sys.executable, ASK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "502\n"

        way_out.bind(str(tmp_path / "way-out.sock"))
        way_out.listen()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        with way_out.accept()[0] as peer:
            assert peer.recv(99).startswith(b"GET / ")
            peer.sendall(b"HTTP/1.1 204 \r\n\r\n")
            assert process.stdout.readline() == "204\n"
