"""Names that are looked up past the proxy are noted, answered with nothing, and bounded."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from claude_proxy.sandbox.relay.bridge import Loop
from claude_proxy.sandbox.relay.lookup_report import ASK, REPORT_LIMIT, parse_report
from claude_proxy.sandbox.relay.name_lookups import NAMES_LIMIT, NameLookups
from tests.wire.test_name_query import AAAA, A, query

NO_SUCH_NAME = 3
ADDRESS = bytes((198, 18, 0, 1))


class Rig:
    """A listener whose loop takes a turn when it is told to."""

    def __init__(self, stack: ExitStack) -> None:
        self.loop = Loop()
        stack.callback(self.loop.close)
        self.udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        self.udp.bind(("127.0.0.1", 0))
        self.tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = stack.enter_context(ours)
        stack.enter_context(theirs)
        self.lookups = NameLookups(self.udp, self.tcp, theirs, os.getpid())
        self.lookups.watch(self.loop)
        self.client = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        self.client.connect(self.udp.getsockname())

    def names(self) -> dict[str, int]:
        self.channel.send(ASK)
        self.loop.step(1)
        return {name: times for name, times, _ in parse_report(self.channel.recv(65536))[1]}


@pytest.fixture
def rig() -> Iterator[Rig]:
    with ExitStack() as stack:
        yield Rig(stack)


def test_a_query_is_answered_with_nothing_and_noted(rig: Rig) -> None:
    rig.client.send(query("Stream.Example"))
    rig.loop.step(1)

    assert rig.client.recv(512)[3] & 0xF == NO_SUCH_NAME
    assert rig.names() == {"stream.example": 1}


def test_the_queries_for_both_kinds_of_addresses_are_one_lookup(rig: Rig) -> None:
    for kind in (A, AAAA, A, AAAA):
        rig.client.send(query("a.example", kind))
        rig.loop.step(1)

    assert rig.names() == {"a.example": 2}


def test_the_program_that_asked_is_named(rig: Rig) -> None:
    rig.client.send(query("a.example"))
    rig.loop.step(1)

    rig.channel.send(ASK)
    rig.loop.step(1)
    [(_, _, program)] = parse_report(rig.channel.recv(65536))[1]
    assert program.startswith("python")


@pytest.mark.parametrize("name", ["localhost", "a.localhost", "1.0.0.127.in-addr.arpa", ""])
def test_a_name_that_does_not_pass_the_proxy_by_is_not_noted(rig: Rig, name: str) -> None:
    rig.client.send(query(name))
    rig.loop.step(1)

    assert rig.client.recv(512)[3] & 0xF == NO_SUCH_NAME
    assert rig.names() == {}


def test_many_names_are_counted_and_not_kept(rig: Rig) -> None:
    for number in range(NAMES_LIMIT + 7):
        rig.lookups.take(query(f"{number}.example"), "udp", 1, lambda _: None)

    others, names = parse_report(rig.lookups.report())

    assert (others, len(names)) == (7, NAMES_LIMIT)


def test_a_report_fits_its_limit_whatever_was_asked(rig: Rig) -> None:
    label = "\1" * 60
    for number in range(NAMES_LIMIT):
        message = query(f"{number:03}{label}.{label}.{label}.{label}")
        rig.lookups.take(message, "udp", 1, lambda _: None)
    rig.channel.send(ASK)
    rig.loop.step(1)

    assert len(parse_report(rig.channel.recv(REPORT_LIMIT))[1]) == NAMES_LIMIT


class Finder:
    """Finds addresses when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.settle: list[Callable[[bytes | None], None]] = []
        self.silent: list[Callable[[], None]] = []

    def __call__(
        self, name: str, on_address: Callable[[bytes | None], None], on_silence: Callable[[], None]
    ) -> None:
        self.asked.append(name)
        self.settle.append(on_address)
        self.silent.append(on_silence)


@pytest.fixture
def finder(rig: Rig) -> Finder:
    """What the rig's listener asks."""
    finder = Finder()
    rig.lookups.find = finder
    return finder


def test_a_name_with_an_address_is_answered_once_that_is_known(rig: Rig, finder: Finder) -> None:
    rig.client.send(query("Stream.Example"))
    rig.loop.step(1)
    rig.client.setblocking(False)
    with pytest.raises(BlockingIOError):
        rig.client.recv(512)

    finder.settle[0](ADDRESS)

    assert finder.asked == ["stream.example"]
    assert rig.client.recv(512).endswith(ADDRESS)
    assert rig.names() == {}


def test_a_name_without_an_address_does_not_exist(rig: Rig, finder: Finder) -> None:
    rig.client.send(query("evil.example"))
    rig.loop.step(1)
    finder.settle[0](None)

    assert rig.client.recv(512)[3] & 0xF == NO_SUCH_NAME
    assert rig.names() == {}  # the proxy has recorded it


def test_what_is_not_known_is_a_failure_for_now(rig: Rig, finder: Finder) -> None:
    rig.client.send(query("a.example"))
    rig.loop.step(1)
    finder.silent[0]()

    assert rig.client.recv(512)[3] & 0xF == 2


@pytest.mark.parametrize("name", ["localhost", "1.0.18.198.in-addr.arpa"])
def test_nobody_is_asked_about_a_name_of_this_machine(rig: Rig, finder: Finder, name: str) -> None:
    rig.client.send(query(name))
    rig.loop.step(1)

    assert rig.client.recv(512)[3] & 0xF == NO_SUCH_NAME
    assert finder.asked == []


def test_a_query_over_tcp_is_answered_later_as_well(rig: Rig, finder: Finder) -> None:
    message = query("tcp.example")
    with socket.create_connection(rig.tcp.getsockname()) as client:
        client.settimeout(60)
        client.sendall(len(message).to_bytes(2) + message)
        rig.loop.step(1)
        rig.loop.step(1)
        finder.settle[0](ADDRESS)

        assert client.recv(512).endswith(ADDRESS)
        assert client.recv(1) == b""


def test_a_client_over_tcp_that_has_left_is_not_answered(rig: Rig, finder: Finder) -> None:
    rig.loop.now = lambda: time
    time = 0.0
    message = query("tcp.example")
    with socket.create_connection(rig.tcp.getsockname()) as client:
        client.sendall(len(message).to_bytes(2) + message)
        rig.loop.step(1)
        rig.loop.step(1)
    time = 60.0
    rig.loop.step(0)

    finder.settle[0](ADDRESS)  # no error


def test_a_flood_leaves_others_a_turn(rig: Rig) -> None:
    for number in range(100):
        rig.client.send(query(f"{number}.example"))

    rig.loop.step(1)

    assert 0 < len(rig.lookups.names) < 100


def test_a_query_over_tcp_is_answered_and_hung_up_on(rig: Rig) -> None:
    message = query("tcp.example")
    with socket.create_connection(rig.tcp.getsockname()) as client:
        client.sendall(len(message).to_bytes(2) + message[:5])
        rig.loop.step(1)
        rig.loop.step(0)
        client.sendall(message[5:])
        rig.loop.step(1)
        client.settimeout(30)
        reply = client.recv(512)
        assert client.recv(1) == b""

    assert reply[2:4] + reply[5:6] == message[:2] + bytes([0x83])
    assert rig.names() == {"tcp.example": 1}


def test_clients_over_tcp_are_bounded(rig: Rig) -> None:
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(rig.tcp.getsockname())) for _ in range(17)
        ]
        rig.loop.step(1)
        clients[-1].settimeout(30)

        assert clients[-1].recv(1) == b""
        for client in clients:
            client.close()
        rig.loop.step(1)


def test_when_the_launcher_is_gone_names_are_answered_as_before(rig: Rig) -> None:
    rig.channel.close()
    rig.loop.step(1)

    rig.client.send(query("a.example"))
    rig.loop.step(1)

    assert rig.client.recv(512)[3] & 0xF == NO_SUCH_NAME
