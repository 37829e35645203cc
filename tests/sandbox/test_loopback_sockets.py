"""Sockets on loopback: what they take, and what they refuse."""

import errno
import socket

import pytest

from claude_proxy.sandbox.loopback_sockets import HOST, listening, receiving


def test_a_listening_socket_is_on_loopback_alone_and_takes_clients() -> None:
    with listening(0) as listener:
        host, port = listener.getsockname()
        with socket.create_connection((host, port), 5) as client, listener.accept()[0] as peer:
            client.sendall(b"x")

            assert (host, peer.recv(1)) == (HOST, b"x")


@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
def test_another_address_of_loopback_can_be_named(host: str) -> None:
    with listening((host, 0)) as listener:
        assert listener.getsockname()[0] == host


def test_a_receiving_socket_is_on_loopback_alone_and_takes_datagrams() -> None:
    with receiving(0) as receiver, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", receiver.getsockname())

        assert (receiver.getsockname()[0], receiver.recv(1)) == (HOST, b"x")


def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    with listening(0) as listener, pytest.raises(OSError, match="in use") as raised:
        listening(listener.getsockname()[1])

    assert raised.value.errno == errno.EADDRINUSE
