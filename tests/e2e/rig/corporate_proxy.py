"""Imitates the proxy of a company: CONNECT and plain requests, for whoever has the password."""

import base64
import contextlib
import socket
import threading

from .namespaces import Namespace

USER, PASSWORD = "employee", "correct horse"  # an imitation, as everything here
_PIECE = 64 * 1024


class CorporateProxy:
    """A CONNECT proxy somewhere on the internet, that resolves names by a table of its own."""

    def __init__(self, internet: Namespace, address: str, port: int, names: dict[str, str]) -> None:
        self.heads: list[bytes] = []
        self._internet = internet
        self._names = names
        self._listener = internet.listen(address, port)
        threading.Thread(target=self._accept, name="corporate proxy", daemon=True).start()

    def close(self) -> None:
        """Accept no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(_PIECE)
                if not piece:
                    return
                head += piece
            head, _, rest = head.partition(b"\r\n\r\n")
            self.heads.append(head)
            secret = base64.b64encode(f"{USER}:{PASSWORD}".encode())
            if b"proxy-authorization: basic " + secret.lower() not in head.lower():
                client.sendall(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                    b'Proxy-Authenticate: Basic realm="corp"\r\nContent-Length: 0\r\n\r\n'
                )
                return
            method, target, _ = head.split(b"\r\n")[0].split()
            if method == b"CONNECT":
                self._tunnel(client, target.decode())
            else:
                self._forward(client, method, target.decode(), head, rest)

    def _dial(self, authority: str) -> socket.socket | None:
        host, _, port = authority.rpartition(":")
        address = self._names.get(host)
        return self._internet.connect(address, int(port)) if address else None

    def _tunnel(self, client: socket.socket, authority: str) -> None:
        upstream = self._dial(authority)
        if upstream is None:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with upstream:
            back = threading.Thread(target=_copy, args=(upstream, client), daemon=True)
            back.start()
            _copy(client, upstream)
            back.join(60)

    def _forward(
        self, client: socket.socket, method: bytes, target: str, head: bytes, rest: bytes
    ) -> None:
        authority, _, path = target.removeprefix("http://").partition("/")
        upstream = self._dial(authority if ":" in authority else f"{authority}:80")
        if upstream is None:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with upstream:
            fields = [
                line for line in head.split(b"\r\n")[1:] if not line.lower().startswith(b"proxy-")
            ]
            start = b"%s /%s HTTP/1.1" % (method, path.encode())
            upstream.sendall(b"\r\n".join([start, *fields, b"Connection: close", b"", b""]) + rest)
            _copy(upstream, client)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_PIECE):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
