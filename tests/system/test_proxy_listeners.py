"""A port on which claude-proxy itself listens is known from those of other programs."""

import socket
import subprocess
import sys

import pytest

from claude_proxy.system import proxy_listeners

LISTEN = (
    "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); "
    "print(s.getsockname()[1], flush=True); sys.stdin.read()"
)


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (["claude-proxy", "serve"], True),
        (["claude-proxy", "gateway", "--port", "1"], True),
        (["claude-proxy", "relay", "--listen", "127.0.0.1:1"], True),
        (["claude-proxy", "run", "--publish", "1:2"], False),
        (["serve"], False),
    ],
)
def test_only_a_proxy_is_known_by_its_command_line(words: list[str], *, known: bool) -> None:
    command = [sys.executable, "-c", LISTEN, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        port = int(process.stdout.readline())

        assert proxy_listeners.is_proxy(port) is known
        process.stdin.close()


def test_a_port_of_another_program_and_a_free_one_are_no_proxys() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert not proxy_listeners.is_proxy(port)
    assert not proxy_listeners.is_proxy(port)
