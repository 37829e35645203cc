"""Allowed names get addresses, each connection to one becomes a tunnel to its name."""

import os
import socket
from collections.abc import Callable
from ipaddress import IPv4Address

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.relay.fake_addresses import FakeAddresses
from claude_proxy.sandbox.relay.fake_network import PORTS_LIMIT, FakeNetwork
from claude_proxy.sandbox.relay.name_questions import NameQuestions

type Ports = tuple[int, ...] | None


class Answers(NameQuestions):
    """A proxy that answers at once."""

    def __init__(self, **by_name: Ports) -> None:
        self.by_name = by_name

    def ask(self, name: str, on_ports: Callable[[Ports], None]) -> None:
        on_ports(self.by_name.get(name.partition(".")[0], ()))


class Client(socket.socket):
    """A client that connected to an address."""

    def __init__(self, address: str, port: int) -> None:
        super().__init__()
        self.close()
        self._name = (address, port)

    def getsockname(self) -> tuple[str, int]:
        return self._name


class Rig:
    def __init__(self, **by_name: Ports) -> None:
        self.said: list[str] = []
        self.opened: list[int] = []
        self.kept = os.memfd_create("names")
        self.network = FakeNetwork(
            Answers(**by_name), FakeAddresses(self.kept), {}, self._listen_at, self.said.append
        )
        self.added: list[socket.socket] = []
        self.network.on_listener = self.added.append

    def __del__(self) -> None:
        os.close(self.kept)

    def _listen_at(self, port: int) -> socket.socket:
        if port == 666:
            raise ClaudeProxyError("the port is cursed")
        self.opened.append(port)
        return Client("0.0.0.0", port)

    def find(self, name: str) -> str | None:
        found: list[bytes | None] = []
        self.network.find(name, found.append, lambda: found.append(b""))
        (address,) = found
        return address if address is None else str(IPv4Address(address)) if address else "silence"


def test_a_connection_to_an_address_is_one_to_its_name_and_port() -> None:
    rig = Rig(a=(443,), b=(443,))
    rig.find("a.example")
    address = rig.find("b.example")
    assert address is not None

    opening = rig.network.opening_for(Client(address, 8443))

    assert opening is not None
    assert opening.target == "b.example:8443"


def test_a_denied_name_has_no_address() -> None:
    assert Rig().find("evil.example") is None


def test_a_proxy_that_is_silent_is_not_taken_for_a_denial() -> None:
    assert Rig(a=None).find("a.example") == "silence"


def test_an_address_that_was_never_given_is_refused() -> None:
    rig = Rig(a=(443,))
    rig.find("a.example")

    assert rig.network.opening_for(Client("198.18.9.9", 443)) is None
    assert rig.network.opening_for(Client("192.0.0.9", 443)) is None


def test_a_port_is_listened_on_with_the_first_name_that_has_it() -> None:
    rig = Rig(a=(443, 5432), b=(5432, 6379))
    rig.find("a.example")
    rig.find("b.example")

    assert rig.opened == [443, 5432, 6379]
    assert len(rig.added) == 3


def test_the_ports_are_bounded_and_what_is_missing_is_said_once() -> None:
    rig = Rig(a=tuple(range(1000, 1000 + PORTS_LIMIT)), b=(443, 80), c=(443,))
    for name in ("a.example", "b.example", "c.example"):
        assert rig.find(name) is not None

    assert len(rig.opened) == PORTS_LIMIT
    assert len(rig.said) == 2


def test_a_port_that_cannot_be_listened_on_does_not_end_the_relay() -> None:
    rig = Rig(a=(666, 443))

    assert rig.find("a.example") is not None
    assert rig.opened == [443]
    assert rig.said == ["nothing listens on port 666 of fake addresses: the port is cursed"]
