"""The program at the other end of a TCP connection of this machine is found by its socket."""

import socket
import sys
from pathlib import Path

import pytest

from claude_proxy.system.tcp_peers import program_at

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_the_program_of_a_connection_is_named(family: socket.AddressFamily, host: str) -> None:
    with (
        socket.create_server((host, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]) as client,
    ):
        peer, own = client.getsockname()[:2], client.getpeername()[:2]

        assert program_at(peer, own) == Path(sys.executable).resolve().name
        assert program_at(peer, (own[0], 1)) is None


@pytest.mark.parametrize("peer", [("unix", 0), ("", 0), ("127.0.0.1",)])
def test_what_is_no_address_has_no_program(peer: tuple[str, int]) -> None:
    assert program_at(peer, ("127.0.0.1", 1)) is None
