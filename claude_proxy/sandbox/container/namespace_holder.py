"""Process that holds the network of a container without being root; a program, run by its path.

It is the first process of a container that only waits, and whose network namespace the workload
joins. It connects to the keeper outside, makes sockets on request, and hands them over: a socket
belongs to the namespace in which it was made, whichever process has it. It keeps none, and reads
nothing that comes through them. Law kept: fail closed: when the keeper is gone, it ends, and what
is left of the network is a loopback interface with nothing on it.

It runs with the host's Python, lent read-only, so it imports only what loads in milliseconds.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress

if not __package__:  # run by its path: add the package's directory, after the standard library
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))  # noqa: PTH100, PTH118, PTH120

from claude_proxy.sandbox.loopback_sockets import HOST, listening, receiving

REQUEST_LIMIT = 4096
SOCKETS_LIMIT = 200  # in one answer; SCM_RIGHTS takes 253

_CONNECT_S = 10.0
# What tells that there is nothing but a loopback interface; the first two have lines of headings.
_INTERFACES = "/proc/self/net/dev"
_ROUTES = "/proc/self/net/route"
_ROUTES_6 = "/proc/self/net/ipv6_route"


def serve(channel: socket.socket) -> None:
    """Answer requests until the other side is gone."""
    while request := channel.recv(REQUEST_LIMIT):
        sockets: list[socket.socket] = []
        try:
            wanted = json.loads(request)
            answer = network_facts() if wanted.get("facts") else {}
            for name, make in _MAKERS.items():
                for port in wanted.get(name, ()):
                    sockets.append(make(port))  # noqa: PERF401 - those before an error are closed
        except (OSError, ValueError, AttributeError, TypeError, OverflowError) as error:
            answer = {"error": str(getattr(error, "strerror", None) or error).lower()}
            _close(sockets)
            sockets = []
        descriptors = [sock.fileno() for sock in sockets]
        socket.send_fds(channel, [json.dumps(answer).encode()], descriptors)
        _close(sockets)


def connected(port: int) -> socket.socket:
    """Return a connection to a server on the loopback interface."""
    # Not create_connection: a lent Python has no codec for the names that it would look up.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(_CONNECT_S)
        sock.connect((HOST, port))
    except OSError:
        sock.close()
        raise
    return sock


_MAKERS = {"listen": listening, "receive": receiving, "connect": connected}


def network_facts() -> dict[str, object]:
    """Return what is in this network namespace: its interfaces and the number of its routes."""
    interfaces = [line.partition(":")[0].strip() for line in _lines(_INTERFACES)[2:]]
    # Routes of the loopback interface itself lead nowhere else.
    routes = [line for line in _lines(_ROUTES)[1:] if line.split()[:1] != ["lo"]]
    routes += [line for line in _lines(_ROUTES_6) if line.split()[-1:] != ["lo"]]
    namespace = os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116 - pathlib costs 3 ms
    return {"namespace": namespace, "interfaces": interfaces, "routes": len(routes)}


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123 - as above
            return file.read().splitlines()
    except FileNotFoundError:
        return []  # a kernel without IPv6


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def run(words: list[str]) -> int:
    """Serve the keeper that listens at the path which is the only argument."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # The first process of a namespace gets no signal that it does not handle.
        signal.signal(number, lambda *_: os._exit(0))
    (path,) = words
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        channel.settimeout(_CONNECT_S)
        channel.connect(path)
        channel.settimeout(None)
        with suppress(OSError):  # a keeper that was killed
            serve(channel)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
