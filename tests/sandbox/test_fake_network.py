"""Fake addresses lead from a sandbox to listeners outside it, and to nothing else."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import netns
from tests.conftest import FindProgram
from tests.sandbox.test_netns import Box
from tests.support.waiting import until

CLIENT = """
import json, socket
def tried(kind, address):
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(60)
        try:
            sock.connect(address)
            if kind == socket.SOCK_STREAM:
                return sock.recv(64).decode()
            sock.send(b"?")
            return repr(sock.recv(64))
        except OSError as error:
            return error.strerror
def bound(host):
    with socket.socket() as sock:
        try:
            sock.bind((host, 8443))
            sock.listen()
        except OSError as error:
            return error.strerror
        return "bound"
print(json.dumps({
    "given": tried(socket.SOCK_STREAM, ("198.19.3.4", 8443)),
    "port": tried(socket.SOCK_STREAM, ("198.18.3.4", 444)),
    "udp": tried(socket.SOCK_DGRAM, ("198.18.3.4", 8443)),
    "end": tried(socket.SOCK_STREAM, ("192.0.0.9", 8443)),
    "other": tried(socket.SOCK_STREAM, ("198.20.0.1", 8443)),
    "nowhere": tried(socket.SOCK_STREAM, ("192.0.2.1", 8443)),
    "loopback": tried(socket.SOCK_STREAM, ("127.0.0.1", 8443)),
    "all": bound("0.0.0.0"),
    "own": bound("127.0.0.1"),
}))
"""


@pytest.fixture
def box(program: FindProgram) -> Iterator[Box]:
    """A sandbox with a network of its own."""
    program("nsenter")
    box = Box(program("bwrap"), "--unshare-net")
    yield box
    box.close()


def test_fake_addresses_lead_to_the_listeners_and_nothing_else_is_reached(box: Box) -> None:
    namespace, [listener] = netns.fake_network(box.init, [8443])
    with ExitStack() as stack:
        stack.callback(os.close, namespace)
        stack.enter_context(listener)
        found, asked_for = seen_inside(box, listener)

    refused, unreachable = os.strerror(111), os.strerror(101)
    assert asked_for == ("198.19.3.4", 8443)
    assert found == {
        "given": "from outside",
        "port": refused,
        "udp": refused,
        "end": unreachable,
        "other": unreachable,
        "nowhere": unreachable,
        "loopback": refused,
        "all": "bound",
        "own": "bound",
    }


def test_more_ports_can_be_listened_on_later(box: Box) -> None:
    namespace, listeners = netns.fake_network(box.init, [443])
    with ExitStack() as stack:
        stack.callback(os.close, namespace)
        for sock in listeners:
            stack.enter_context(sock)
        listener = stack.enter_context(netns.fake_network_listener(namespace, 8443))
        found, _ = seen_inside(box, listener)

    assert found["given"] == "from outside"


def test_the_route_is_gone_with_the_last_socket(box: Box) -> None:
    namespace, [listener] = netns.fake_network(box.init, [8443])
    listener.close()
    os.close(namespace)

    devices = Path(f"/proc/{box.init}/net/dev")
    until(lambda: "claude-proxy" not in devices.read_text("ascii"), "the end of the cable")


def test_a_port_that_is_taken_is_an_error(box: Box) -> None:
    namespace, [listener] = netns.fake_network(box.init, [8443])
    with listener, pytest.raises(ClaudeProxyError, match="in use"):
        netns.fake_network_listener(namespace, 8443)
    os.close(namespace)


def test_it_is_made_only_once(box: Box) -> None:
    namespace, [listener] = netns.fake_network(box.init, [8443])
    with listener, pytest.raises(ClaudeProxyError) as caught:
        netns.fake_network(box.init, [8443])
    os.close(namespace)

    assert "--transparent" in str(caught.value.fix)


def seen_inside(box: Box, listener: socket.socket) -> tuple[dict[str, str], object]:
    """Return what a client in the sandbox's network finds, and the address it asked for."""
    enter = ["nsenter", "-t", str(box.init), "-U", "--preserve-credentials", "-n"]
    words = [*enter, sys.executable, "-c", CLIENT]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        client, _ = listener.accept()
        with client:
            asked_for = client.getsockname()
            client.sendall(b"from outside")
        assert process.stdout is not None
        return json.load(process.stdout), asked_for
