"""Sockets are created in a sandbox's network only, and connections are probed from there."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import netns
from claude_proxy.sandbox.loopback_sockets import HOST
from tests.conftest import FindProgram

PORT = 3128
INSIDE = (
    "import socket; s = socket.create_connection(('127.0.0.1', 3128)); s.sendall(b'from inside');"
    "print(s.recv(100).decode())"
)


class Box:
    """A bare sandbox with a network of its own, whose command waits for a line."""

    def __init__(self, bwrap: str, *options: str) -> None:
        reading, writing = os.pipe()
        words = ["--unshare-user", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
        command = ["--", "sh", "-c", f'read line; exec python3 -c "{INSIDE}"']
        with open(reading, "rb") as info:  # noqa: PTH123 - a descriptor
            self.process = subprocess.Popen(
                [bwrap, *words, *options, "--info-fd", str(writing), *command],
                pass_fds=[writing],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            os.close(writing)
            self.init = int(json.load(info)["child-pid"])

    @property
    def stdout(self) -> IO[bytes]:
        """What the command prints."""
        assert self.process.stdout is not None
        return self.process.stdout

    def go(self) -> None:
        """Have the command connect."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            os.kill(self.init, signal.SIGKILL)
        self.process.communicate()


def namespaces() -> list[int]:
    return [Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in ("net", "user")]


@pytest.fixture
def bwrap(program: FindProgram) -> str:
    """Where bwrap is."""
    return program("bwrap")


@pytest.fixture
def box(bwrap: str) -> Iterator[Box]:
    """A sandbox with a network of its own."""
    box = Box(bwrap, "--unshare-net")
    yield box
    box.close()


def test_a_connection_from_inside_arrives_outside(box: Box, program: FindProgram) -> None:
    program("python3")
    (listener,) = netns.listeners(box.init, [PORT])

    box.go()
    with listener, listener.accept()[0] as client:
        assert client.recv(100) == b"from inside"
        client.sendall(b"from outside")

    assert box.stdout.readline() == b"from outside\n"


def test_nothing_listens_outside(box: Box) -> None:
    sockets = netns.listeners(box.init, [PORT, 1080])

    try:
        assert [sock.getsockname() for sock in sockets] == [(HOST, PORT), (HOST, 1080)]
        with socket.socket() as free:
            free.bind((HOST, 0))
        # The port is free on the machine itself: it can be had there.
        with socket.create_server((HOST, 0)) as own:
            assert own.getsockname()[1] != PORT
    finally:
        for sock in sockets:
            sock.close()


def test_two_sandboxes_can_use_the_same_port(box: Box, bwrap: str) -> None:
    other = Box(bwrap, "--unshare-net")
    sockets = [netns.listeners(found.init, [PORT])[0] for found in (box, other)]

    assert len({os.fstat(sock.fileno()).st_ino for sock in sockets}) == 2

    for sock in sockets:
        sock.close()
    other.close()


def test_a_sandbox_that_shares_the_machines_network_is_refused(bwrap: str) -> None:
    box = Box(bwrap)

    with pytest.raises(ClaudeProxyError, match="no network namespace of its own"):
        netns.listeners(box.init, [PORT])

    box.close()


def test_a_sandbox_that_has_gone_is_an_error(box: Box) -> None:
    box.close()

    with pytest.raises(ClaudeProxyError, match="cannot be entered") as caught:
        netns.listeners(box.init, [PORT])

    assert caught.value.fix is not None


def test_a_port_that_is_taken_is_an_error(box: Box) -> None:
    (first,) = netns.listeners(box.init, [PORT])

    with first, pytest.raises(ClaudeProxyError, match="in use"):
        netns.listeners(box.init, [1080, PORT])


def test_a_sandbox_without_a_proxy_has_no_route(box: Box) -> None:
    found = netns.probe_network(box.init, PORT, "allowed.test:443", "denied.test:443")

    assert found.direct is not None
    assert (found.allowed, found.denied) == (None, None)


# A program, and no thread: the ways are tried in a fork, and one of many threads may hang.
PROXY = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
for status in ("200 OK", "403 Denied"):
    with listener.accept()[0] as client:
        print(client.recv(1000).decode().splitlines()[0])
        client.sendall(f"HTTP/1.1 {status}\\r\\n\\r\\n".encode())
"""


def test_the_proxys_answers_are_reported(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "_ANSWER_S", 60.0)
    (listener,) = netns.listeners(box.init, [PORT])
    with (
        listener,
        subprocess.Popen(
            [sys.executable, "-c", PROXY, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        ) as proxy,
    ):
        ways = netns.probe_network(box.init, PORT, "allowed.test:443", "denied.test:443")
        asked, _ = proxy.communicate()

    assert (ways.allowed, ways.denied) == (200, 403)
    assert asked.splitlines() == [
        "CONNECT allowed.test:443 HTTP/1.1",
        "CONNECT denied.test:443 HTTP/1.1",
    ]


def test_this_process_stays_in_its_namespaces(box: Box) -> None:
    before = namespaces()

    for sock in netns.listeners(box.init, [PORT]):
        sock.close()

    assert namespaces() == before
