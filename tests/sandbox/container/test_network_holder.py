"""A namespace is held by a process in it, which hands sockets over; without it nothing is left."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from claude_proxy.sandbox.container import namespace_holder
from claude_proxy.sandbox.container.network_holder import (
    SOCKET_NAME,
    HolderError,
    NetworkHolder,
)
from claude_proxy.sandbox.loopback_sockets import HOST
from tests.conftest import FindProgram

PROGRAM = Path(namespace_holder.__file__)
WAIT_S = 30
SERVER = (
    "import socket; s = socket.create_server(('127.0.0.1', 8000)); print(flush=True);"
    "c, _ = s.accept(); c.sendall(b'from inside'); c.close()"
)

type Claims = Callable[[dict[str, object]], None]
type Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("h")


@pytest.fixture
def held(directory: Path) -> Iterator[NetworkHolder]:
    holder = NetworkHolder(directory)
    yield holder
    holder.close()


@pytest.fixture
def claims(held: NetworkHolder, directory: Path) -> Iterator[Claims]:
    """Have a process of our own namespace claim something of its own, and hand over a socket."""
    threads: list[threading.Thread] = []

    def claim(facts: dict[str, object]) -> None:
        def answer() -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
                channel.connect(str(directory / SOCKET_NAME))
                channel.recv(4096)
                channel.send(json.dumps(facts).encode())
                with socket.create_server((HOST, 0)) as own, suppress(OSError):
                    if channel.recv(4096):
                        socket.send_fds(channel, [b"{}"], [own.fileno()])

        threads.append(threading.Thread(target=answer))
        threads[-1].start()

    yield claim
    held.close()
    for thread in threads:
        thread.join()


@pytest.fixture
def start(program: FindProgram, directory: Path) -> Iterator[Start]:
    """Start the process that holds a namespace, in one made by bwrap."""
    bwrap, started = program("bwrap"), list[subprocess.Popen[bytes]]()

    def start(*options: str, first: str = "") -> subprocess.Popen[bytes]:
        words = [sys.executable, "-I", "-S", str(PROGRAM), str(directory / SOCKET_NAME)]
        command = ["sh", "-c", f'{first} exec "$@"', "sh", *words]
        view = ["--unshare-user", "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
        process = subprocess.Popen(
            [bwrap, *view, "--die-with-parent", *options, "--", *command], stdout=subprocess.PIPE
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_its_sockets_are_of_the_held_namespace(held: NetworkHolder, start: Start) -> None:
    start("--unshare-net")
    held.wait(patience_s=WAIT_S)

    sockets = held.listeners((3128, 1080), (5353,))

    try:
        names = [sock.getsockname() for sock in sockets]
        assert names == [(HOST, 3128), (HOST, 1080), (HOST, 5353)]
        # The same port is free here, and nobody here reaches the one there.
        with socket.create_server((HOST, 0)) as own:
            assert own.getsockname()[1]
        with held.connect(3128) as client, sockets[0].accept()[0] as peer:
            client.sendall(b"x")
            assert peer.recv(1) == b"x"
    finally:
        for sock in sockets:
            sock.close()


def test_a_server_there_is_reached_from_outside(held: NetworkHolder, start: Start) -> None:
    process = start("--unshare-net", first=f'{sys.executable} -c "{SERVER}" &')
    held.wait(patience_s=WAIT_S)
    assert process.stdout is not None
    process.stdout.readline()

    with held.connect(8000) as connection:
        connection.settimeout(WAIT_S)
        assert connection.recv(20, socket.MSG_WAITALL) == b"from inside"


def test_a_port_that_is_taken_there_is_an_error_that_says_so(
    held: NetworkHolder, start: Start
) -> None:
    start("--unshare-net")
    held.wait(patience_s=WAIT_S)
    (listening,) = held.listeners((3128,))

    with listening, pytest.raises(HolderError, match="address already in use"):
        held.listeners((1080, 3128))
    (other,) = held.listeners((1080,))  # what was made before the error is closed
    other.close()


def test_a_namespace_that_is_ours_is_refused(held: NetworkHolder, start: Start) -> None:
    start()

    with pytest.raises(HolderError, match="no network namespace of its own"):
        held.wait(patience_s=WAIT_S)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"namespace": 1, "interfaces": ["lo", "eth0"], "routes": 0}, "more than a loopback"),
        ({"namespace": 1, "interfaces": ["lo"], "routes": 1}, "more than a loopback"),
        ({"namespace": 1, "routes": 0}, "more than a loopback"),
        ({"interfaces": ["lo"], "routes": 0}, "no network namespace of its own"),
    ],
)
def test_a_network_that_leads_anywhere_is_refused(
    held: NetworkHolder, claims: Claims, facts: dict[str, object], said: str
) -> None:
    claims(facts)

    with pytest.raises(HolderError, match=said):
        held.wait(patience_s=WAIT_S)


def test_sockets_of_our_own_namespace_are_refused(held: NetworkHolder, claims: Claims) -> None:
    """What tells about a namespace may be wrong; where a socket is, the kernel says."""
    claims({"namespace": 1, "interfaces": ["lo"], "routes": 0})
    held.wait(patience_s=WAIT_S)

    with pytest.raises(HolderError, match="not of a network namespace of its own"):
        held.listeners((3128,))


def test_it_ends_with_the_keeper(held: NetworkHolder, start: Start) -> None:
    process = start("--unshare-net")
    held.wait(patience_s=WAIT_S)

    held.close()

    assert process.wait(WAIT_S) == 0


def test_a_keeper_notices_its_end(held: NetworkHolder, start: Start) -> None:
    process = start("--unshare-net")
    held.wait(patience_s=WAIT_S)
    process.kill()
    process.wait(WAIT_S)

    with pytest.raises(HolderError, match="has ended"):
        held.listeners((3128,))


def test_a_container_that_cannot_come_any_more_is_not_waited_for(held: NetworkHolder) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()

    with ours, pytest.raises(HolderError, match="ended at once"):
        held.wait(ours.fileno())


def test_only_those_above_see_its_directory(held: NetworkHolder, directory: Path) -> None:
    """The container's user may be anybody on this machine."""
    assert held.fileno() == -1
    assert directory.stat().st_mode & 0o777 == 0o711
    assert (directory / SOCKET_NAME).stat().st_mode & 0o777 == 0o666
