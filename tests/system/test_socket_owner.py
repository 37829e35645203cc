"""The program behind a local port is found in its process tree, or nothing is said."""

import os
import socket
import subprocess
import sys

import pytest

from claude_proxy.system.socket_owner import program_with_port

PROGRAM = os.path.basename(os.path.realpath(sys.executable))  # noqa: PTH119
KINDS = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}


@pytest.mark.parametrize("protocol", KINDS)
def test_the_program_is_named(protocol: str) -> None:
    with socket.socket(socket.AF_INET, KINDS[protocol]) as sock:
        sock.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            sock.listen()

        assert program_with_port(os.getpid(), protocol, sock.getsockname()[1]) == PROGRAM


def test_a_program_is_found_among_the_children_of_any_thread() -> None:
    script = (
        "import socket, threading, subprocess, sys; s = socket.socket(type=socket.SOCK_DGRAM); "
        "s.bind(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        port = int(process.stdout.readline())

        assert program_with_port(os.getpid(), "udp", port) == PROGRAM
        process.communicate()


def test_a_port_that_nobody_in_the_tree_has_belongs_to_nobody() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]

    assert program_with_port(os.getpid(), "udp", port) == ""


def test_a_process_that_is_gone_has_no_port() -> None:
    assert program_with_port(2**22 + 1, "udp", 53) == ""
