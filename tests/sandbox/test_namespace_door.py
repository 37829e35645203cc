"""Sockets are made in the sandbox's network, and who listens there is seen from outside."""

import contextlib
import errno
import os
import resource
import signal
import socket
from collections.abc import Iterator

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.namespace_door import NamespaceDoor
from tests.conftest import FindProgram
from tests.sandbox.network_box import NetworkBox, network_box
from tests.support.processes import has_ended
from tests.support.waiting import until


@pytest.fixture
def box(program: FindProgram) -> Iterator[NetworkBox]:
    with network_box(program("bwrap")) as box:
        yield box


@contextlib.contextmanager
def descriptors_used_up() -> Iterator[None]:
    """Let this process open no more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_socket_that_is_made_there_reaches_a_server_inside(box: NetworkBox) -> None:
    with (
        box.server(3000) as server,
        NamespaceDoor(box.init) as door,
        door.make(socket.AF_INET) as client,
    ):
        client.connect(("127.0.0.1", 3000))
        with server.accept()[0] as peer:
            client.sendall(b"from outside")

            assert peer.recv(100) == b"from outside"


def test_a_socket_that_is_made_there_reaches_nothing_outside(box: NetworkBox) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as outside,
        NamespaceDoor(box.init) as door,
        door.make(socket.AF_INET) as client,
        pytest.raises(ConnectionRefusedError),
    ):
        client.connect(outside.getsockname())


def test_too_many_open_files_are_an_error_and_pass(box: NetworkBox) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with NamespaceDoor(box.init) as door:
        with descriptors_used_up(), pytest.raises(OSError, match="no socket") as refused:
            door.make(socket.AF_INET)
        with box.server(3000), door.make(socket.AF_INET) as client:
            client.connect(("127.0.0.1", 3000))

    assert refused.value.errno == errno.EMFILE
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def test_once_its_child_has_ended_no_socket_can_be_made(box: NetworkBox) -> None:
    with NamespaceDoor(box.init) as door:
        os.kill(door.child, signal.SIGKILL)

        for _ in range(2):
            with pytest.raises(OSError, match=r"."):
                door.make(socket.AF_INET)


def test_who_listens_inside_is_seen_and_nobody_else(box: NetworkBox) -> None:
    with socket.create_server(("127.0.0.1", 0)), NamespaceDoor(box.init) as door:
        assert door.listening() == frozenset()
        with box.server(3000), box.server(3001, "127.0.0.2"):
            assert door.listening() == {3000}
        assert door.listening() == frozenset()


def test_a_namespace_that_is_the_machines_own_is_refused() -> None:
    with pytest.raises(ClaudeProxyError, match="no network namespace of its own"):
        NamespaceDoor(os.getpid())


def test_a_process_that_has_gone_is_an_error(box: NetworkBox) -> None:
    box.close()

    with pytest.raises(ClaudeProxyError, match="cannot be entered"):
        NamespaceDoor(box.init)


def test_its_child_holds_nothing_of_the_caller(box: NetworkBox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, NamespaceDoor(box.init):
        place = listener.getsockname()
        listener.close()

        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(place)


def test_once_it_is_closed_the_sandbox_can_end(box: NetworkBox) -> None:
    door = NamespaceDoor(box.init)
    door.close()
    box.close()

    until(lambda: has_ended(box.init), "the end of the sandbox")
