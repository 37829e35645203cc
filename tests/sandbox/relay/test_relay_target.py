"""A relay target opens the socket that a place needs, and imports no relay."""

import socket
import subprocess
import sys

import pytest

from claude_proxy.sandbox.relay.relay_target import RelayTarget


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_a_target_opens_a_socket_of_the_family_that_is_asked_for(
    family: socket.AddressFamily,
) -> None:
    with RelayTarget("it", socket.AF_UNIX, "address").open(family) as opened:
        assert (opened.family, opened.type) == (family, socket.SOCK_STREAM)


def test_to_name_a_target_imports_no_relay() -> None:
    program = "import sys, claude_proxy.sandbox.relay.relay_target; print(*sys.modules)"

    named = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout.split()

    assert "claude_proxy.sandbox.relay.bridge" not in named
