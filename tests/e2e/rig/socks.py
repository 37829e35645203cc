"""Speaks SOCKS5 to the proxy byte by byte, as curl would never do."""

import socket
import ssl

from .client import Tunnel

GREETING = b"\x05\x01\x00"
NO_LOGIN = b"\x05\x00"
CONNECT, BIND, UDP = 1, 2, 3
GRANTED, FAILED, DENIED, UNREACHABLE, REFUSED = 0, 1, 2, 4, 5
NO_COMMAND, NO_ADDRESS = 7, 8


def reply(code: int) -> bytes:
    """Return the whole reply that says `code`."""
    return bytes([5, code, 0, 1]) + bytes(6)


def request(target: str | bytes, port: int | None = None, *, command: int = CONNECT) -> bytes:
    """Return a request for a name: "host:port", or any bytes and a port."""
    if port is None:
        assert isinstance(target, str)
        target, _, digits = target.rpartition(":")
        port = int(digits)
    name = target.encode() if isinstance(target, str) else target
    return bytes([5, command, 0, 3, len(name)]) + name + port.to_bytes(2)


def address_request(address: str, port: int) -> bytes:
    """Return a request for an address in its binary form."""
    kind, family = (4, socket.AF_INET6) if ":" in address else (1, socket.AF_INET)
    return bytes([5, CONNECT, 0, kind]) + socket.inet_pton(family, address) + port.to_bytes(2)


def login(user: str, password: str) -> bytes:
    """Return a login of RFC 1929."""
    parts = (user.encode(), password.encode())
    return b"\x01" + b"".join(bytes([len(part)]) + part for part in parts)


class SocksError(Exception):
    """A request that was not granted."""

    def __init__(self, code: int) -> None:
        super().__init__(f"SOCKS reply {code}")
        self.code = code


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """Read so many bytes and none that follow them."""
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionError(f"it ended after {data!r}")
        data += piece
    return data


def open_socks_tunnel(
    connection: socket.socket,
    target: str,
    context: ssl.SSLContext | None = None,
    *,
    server_name: str | None = None,
) -> Tunnel:
    """Ask for a tunnel on `connection`, then speak TLS unless there is no context for it."""
    try:
        connection.sendall(GREETING)
        assert read_exactly(connection, 2) == NO_LOGIN
        connection.sendall(request(target))
        code = read_exactly(connection, 10)[1]
        if code == GRANTED:
            if context is not None:
                name = server_name or target.rpartition(":")[0]
                connection = context.wrap_socket(connection, server_hostname=name)
            return Tunnel(connection, target)
    except BaseException:
        connection.close()
        raise
    connection.close()
    raise SocksError(code)
