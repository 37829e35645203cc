"""Sockets on the loopback interface of the network namespace of the process that makes them.

A namespace that was made a moment ago may still have its loopback interface down, so a bind is
tried for some seconds. Imports only what loads in milliseconds: the process that holds the network
of a container uses it too.
"""

import errno
import socket
import time

type Place = int | tuple[str, int]  # a port of HOST, or another address of loopback and a port

HOST = "127.0.0.1"

_PATIENCE_S = 5.0
_PAUSE_S = 0.002
_BACKLOG = 1024


def listening(place: Place) -> socket.socket:
    """Return a socket that listens on TCP; raises OSError, as all here."""
    host, port = (HOST, place) if isinstance(place, int) else place
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only if the protocol is named.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(sock, host, port)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def receiving(port: int) -> socket.socket:
    """Return a socket that receives datagrams."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        _bind(sock, HOST, port)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, host: str, port: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            sock.bind((host, port))
        except OSError as error:
            # Whoever made the namespace may be about to bring loopback up.
            if error.errno != errno.EADDRNOTAVAIL or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)
        else:
            return
