"""A program enters its namespaces before it starts, and nothing of it outlives its launcher."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from claude_proxy.sandbox import own_programs
from claude_proxy.sandbox.container import network_entry
from tests.support.waiting import until

LIMIT_S = 60

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of root's own")

type Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e") / "s"


@pytest.fixture
def listener(place: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen(1)
        listening.settimeout(LIMIT_S)
        yield listening


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str) -> subprocess.Popen[bytes]:
        entry = own_programs.words_of(network_entry, str(place), *words)
        started.append(subprocess.Popen(entry, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def let_go(listener: socket.socket, said: bytes = network_entry.GO) -> None:
    channel, _ = listener.accept()
    with channel:
        assert channel.recv(100)
        channel.sendall(said)


def test_the_program_has_loopback_and_processes_of_its_own(
    start: Start, listener: socket.socket
) -> None:
    process = start("sh", "-c", "cat /proc/net/dev; echo $$; ls /proc | grep -c '^[0-9]*$'; exit 7")

    let_go(listener)

    out, _ = process.communicate(timeout=LIMIT_S)
    *interfaces, pid, processes = out.decode().splitlines()
    assert [line.partition(":")[0].strip() for line in interfaces if ":" in line] == ["lo"]
    assert pid == "1"
    assert int(processes) < 6
    assert process.returncode == 7


def test_loopback_is_up(start: Start, listener: socket.socket) -> None:
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(s.getsockname()); print('up')"
    )
    process = start("python3", "-c", program)

    let_go(listener)

    assert process.communicate(timeout=LIMIT_S)[0] == b"up\n"


@pytest.mark.parametrize("answer", [b"", b"no\n", b"g"])
def test_without_the_launchers_word_nothing_starts(
    start: Start, listener: socket.socket, answer: bytes
) -> None:
    process = start("echo", "started")

    let_go(listener, answer)

    assert process.communicate(timeout=LIMIT_S)[0] == b""
    assert process.returncode == 126


def test_a_program_that_is_not_there_is_reported(start: Start, listener: socket.socket) -> None:
    process = start("/no/such/program")

    let_go(listener)

    _, err = process.communicate(timeout=LIMIT_S)
    assert b"/no/such/program: no such file" in err
    assert process.returncode == 126


def test_all_that_was_started_ends_with_the_process_outside(
    start: Start, listener: socket.socket, tmp_path: Path
) -> None:
    lock = tmp_path / "lock"
    script = f"setsid sh -c 'exec 9> {lock}; flock 9; echo held; sleep 600' & wait"
    process = start("sh", "-c", script)
    let_go(listener)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"

    process.send_signal(signal.SIGKILL)

    until(lambda: not subprocess.run(["flock", "--nonblock", lock, "true"], check=False).returncode)


def test_a_signal_reaches_the_program(start: Start, listener: socket.socket) -> None:
    process = start("sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    let_go(listener)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"

    process.terminate()

    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 9
