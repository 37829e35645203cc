"""A cable may be long: what crosses it arrives later, whole, in order, and not held up."""

import socket
import time
from collections.abc import Iterator

import pytest

from .rig.internet import Internet
from .rig.namespaces import INTERNET_ADDRESS

RTT_MS = 30


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    """An internet that is a round trip away."""
    internet = Internet(tmp_path_factory.mktemp("far"), rtt_ms=RTT_MS)
    yield internet
    internet.close()


def test_a_handshake_takes_a_round_trip(far: Internet) -> None:
    address = far.site("origin.test")

    start = time.monotonic()
    far.host.connect(address, 443).close()

    # Less is impossible on any machine; more is a slow one's.
    assert time.monotonic() - start >= RTT_MS / 1000


def test_frames_arrive_one_by_one_in_order(far: Internet) -> None:
    sender = far.host.new_socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver = far.namespace.new_socket(socket.AF_INET, socket.SOCK_DGRAM)
    sent = [b"%d" % number for number in range(200)]

    with sender, receiver:
        receiver.bind((INTERNET_ADDRESS, 7))
        for data in sent:
            sender.sendto(data, (INTERNET_ADDRESS, 7))
        got = [receiver.recv(2048) for _ in sent]

    assert got == sent


def test_ipv6_crosses_too(far: Internet) -> None:
    with far.host.connect("2600:1f18::77", 443) as connection:
        assert connection.getpeername()[0] == "2600:1f18::77"
