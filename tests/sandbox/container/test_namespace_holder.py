"""The process that holds a namespace answers what is asked, and nothing else."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.sandbox.container import namespace_holder
from claude_proxy.sandbox.container.namespace_holder import network_facts, serve

WAIT_S = 30


@pytest.fixture
def keeper() -> Iterator[socket.socket]:
    """The other end of a process that serves."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(WAIT_S)
    serving = threading.Thread(target=serve, args=(theirs,))
    serving.start()
    yield ours
    ours.close()
    serving.join(WAIT_S)
    theirs.close()
    assert not serving.is_alive()


def asked(keeper: socket.socket, request: bytes) -> tuple[dict[str, object], list[int]]:
    keeper.send(request)
    message, descriptors, _, _ = socket.recv_fds(keeper, 4096, 10)
    for descriptor in descriptors:
        os.close(descriptor)
    return json.loads(message), descriptors


def test_it_tells_the_interfaces_and_the_routes_of_its_namespace() -> None:
    facts = network_facts()

    assert facts["namespace"] == Path("/proc/self/ns/net").stat().st_ino
    assert "lo" in facts["interfaces"]  # type: ignore[operator]
    assert isinstance(facts["routes"], int)


def test_it_keeps_no_socket(keeper: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    for _ in range(2):  # the port is free again as soon as the keeper closes it
        answer, sockets = asked(keeper, json.dumps({"listen": [port]}).encode())
        assert (answer, len(sockets)) == ({}, 1)


@pytest.mark.parametrize(
    "request_", [b"\xff", b"[]", b'{"listen": 1}', b'{"listen": ["x"]}', b'{"listen": [99999]}']
)
def test_what_it_does_not_understand_makes_no_socket(
    keeper: socket.socket, request_: bytes
) -> None:
    answer, sockets = asked(keeper, request_)

    assert answer["error"]
    assert not sockets
    assert asked(keeper, b"{}") == ({}, [])  # and it goes on


def test_a_holder_without_a_keeper_ends(tmp_path: Path) -> None:
    words = [sys.executable, "-I", "-S", namespace_holder.__file__, str(tmp_path / "none.sock")]

    ended = subprocess.run(words, capture_output=True, check=False, timeout=WAIT_S)

    assert ended.returncode == 1
