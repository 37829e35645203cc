"""This machine reaches servers inside, on the ports that were asked for, and nothing else does."""

import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from claude_proxy.errors import AuditError
from claude_proxy.sandbox import port_publisher
from claude_proxy.sandbox.namespace_door import NamespaceDoor
from claude_proxy.sandbox.port_publisher import Publisher, ServerInside
from claude_proxy.sandbox.relay.bridge import Loop
from claude_proxy.system import listening_ports
from tests.conftest import FindProgram
from tests.sandbox.network_box import NetworkBox, network_box
from tests.support.processes import has_ended

PORTS = itertools.count(21_000 + os.getpid() % 9_000)


def free_port() -> int:
    """A port that is free on this machine; unlike one of port 0, it is not given to others."""
    taken = listening_ports.of_this_machine()
    return next(port for port in PORTS if port not in taken)


class Published:
    """A publisher of a box, whose loop turns when the test says so."""

    def __init__(self, box: NetworkBox, door: NamespaceDoor) -> None:
        self.box = box
        self.loop = Loop()
        self.recorded: list[str] = []
        self.said: list[str] = []
        self.logged: list[str] = []
        self.refusing = False
        self.now = 0.0
        self.loop.now = lambda: self.now
        self.loop.running = True
        self.publisher = Publisher(
            door, self.loop, record=self._record, log=self.logged.append, say=self.said.append
        )

    def _record(self, text: str) -> None:
        if self.refusing:
            raise AuditError("the disk is full")
        self.recorded.append(text)

    def look(self) -> None:
        """Let the next look at the listeners happen."""
        self.now += 1
        self.loop.step(0)

    def turn(self, times: int = 20) -> None:
        for _ in range(times):
            self.loop.step(0.01)


@pytest.fixture
def published(program: FindProgram) -> Iterator[Published]:
    with network_box(program("bwrap")) as box, NamespaceDoor(box.init) as door:
        published = Published(box, door)
        yield published
        published.publisher.close()
        published.loop.close()


def fixed(published: Published, port: int) -> tuple[str, int]:
    listener = socket.create_server(("127.0.0.1", 0))
    place: tuple[str, int] = listener.getsockname()
    published.publisher.publish(listener, f"127.0.0.1:{place[1]}", port)
    return place


def talks(published: Published, place: tuple[str, int], server: socket.socket) -> bytes:
    """Connect from this machine; return what comes back from the server inside."""
    with socket.create_connection(place, 60) as client:
        client.sendall(b"hello")
        published.turn()
        peer, _ = server.accept()
        with peer:
            peer.sendall(peer.recv(5).upper())
            published.turn()
            return client.recv(100)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_server_inside_is_reached_wherever_it_listens(published: Published, host: str) -> None:
    place = fixed(published, 3000)
    with published.box.server(3000, host) as server:
        assert talks(published, place, server) == b"HELLO"


def test_a_server_that_starts_later_and_again_is_reached(published: Published) -> None:
    place = fixed(published, 3000)
    for _ in range(2):
        with published.box.server(3000) as server:
            assert talks(published, place, server) == b"HELLO"


def test_while_nothing_listens_inside_a_client_is_reset(published: Published) -> None:
    place = fixed(published, 3000)
    with socket.create_connection(place, 60) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        published.turn()
        published.now += 60
        published.turn()

        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_what_was_published_is_recorded_with_its_use(published: Published) -> None:
    place = fixed(published, 3000)
    with published.box.server(3000) as server:
        talks(published, place, server)
    published.publisher.close()

    assert published.recorded == [
        f"127.0.0.1:{place[1]} leads to port 3000 inside",
        f"127.0.0.1:{place[1]} no longer leads to port 3000 inside, after 1 connection",
    ]


def test_a_port_that_cannot_be_recorded_is_not_published(published: Published) -> None:
    published.refusing = True

    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(AuditError):
        published.publisher.publish(listener, "127.0.0.1:1", 3000)
    port = free_port()
    with published.box.server(port):
        published.publisher.watch(frozenset())

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert published.said == [f"port {port} inside is not published: the disk is full"]


def test_a_port_on_which_a_program_begins_to_listen_is_published_while_it_does(
    published: Published,
) -> None:
    published.publisher.watch(frozenset())
    port = free_port()
    with published.box.server(port) as server:
        published.look()
        assert talks(published, ("127.0.0.1", port), server) == b"HELLO"
    published.look()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert published.said == [f"127.0.0.1:{port} leads to port {port} inside (--publish auto)"]
    published.look()
    assert published.recorded[-1].endswith("after 1 connection")


def test_a_connection_outlives_the_listener_as_the_answer_to_a_login_does(
    published: Published,
) -> None:
    published.publisher.watch(frozenset())
    port = free_port()
    with published.box.server(port) as server:
        published.look()
        client = socket.create_connection(("127.0.0.1", port), 60)
        published.turn()
        peer, _ = server.accept()
    published.look()
    with client, peer:
        peer.sendall(b"you may close this window")
        published.turn()

        assert client.recv(100) == b"you may close this window"


def test_a_port_that_is_in_use_on_this_machine_is_left_alone(published: Published) -> None:
    with socket.create_server(("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        with published.box.server(port):
            published.publisher.watch(frozenset())
            published.look()

    assert [line.partition(":")[0] for line in published.said] == [
        f"port {port} inside is not published"
    ]
    assert f"--publish 0:{port}" in published.said[0]
    assert published.recorded == []


@pytest.mark.parametrize("port", [80, *port_publisher.TAKEN_FOR_OURS])
def test_ports_of_services_of_this_machine_are_not_published_by_themselves(
    published: Published, port: int
) -> None:
    before = listening_ports.of_this_machine()
    with published.box.server(port):
        published.publisher.watch(frozenset())

    assert published.recorded == []
    # Other programs of this machine listen and end meanwhile.
    assert port not in listening_ports.of_this_machine() - before


def test_ports_that_are_the_runs_own_are_passed_over_in_silence(published: Published) -> None:
    port = free_port()
    with published.box.server(port):
        published.publisher.watch(frozenset({port}))

    assert published.said == []
    assert published.recorded == []


def test_so_many_ports_are_published_and_no_more(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_publisher, "MOST_AT_ONCE", 1)
    first, second = free_port(), free_port()
    with published.box.server(first), published.box.server(second):
        published.publisher.watch(frozenset())

    assert published.said[1:] == [
        f"port {second} inside is not published: too many ports are published already"
    ]


def test_a_port_that_comes_and_goes_is_said_once(published: Published) -> None:
    published.publisher.watch(frozenset())
    port = free_port()
    for _ in range(3):
        with published.box.server(port):
            published.look()
        published.look()

    assert len(published.said) == 1
    assert published.logged == published.said
    assert len([text for text in published.recorded if "no longer" not in text]) == 3


def test_a_server_inside_that_cannot_be_reached_any_more_is_an_error_of_the_client(
    program: FindProgram,
) -> None:
    with network_box(program("bwrap")) as box, NamespaceDoor(box.init) as door:
        server = ServerInside(3000, door)
        assert [str(place[1]) for place in server.places]
        with suppress(OSError), server.open(socket.AF_INET) as sock:
            assert sock.getsockname()[1] == 0
    assert has_ended(box.init)
