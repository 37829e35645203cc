"""Speaks HTTP to the proxy byte by byte, where a real client would be too polite to try."""

import http.client
import io
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, cast


@dataclass(frozen=True)
class Answer:
    """One answer as the client got it."""

    status: int
    phrase: str
    headers: Mapping[str, str]  # by lower-case name
    body: bytes

    @property
    def reason(self) -> str | None:
        """The proxy's reason, if the answer is its own."""
        return self.headers.get("x-claude-proxy-reason")

    def text(self) -> str:
        """Return the body as text."""
        return self.body.decode()


class CannotConnectError(Exception):
    """A CONNECT that was not answered with 200."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} {answer.phrase}")
        self.answer = answer


class _Reader(io.BufferedReader):
    """Reads a stream for several answers: `http.client` closes its reader after each."""

    def close(self) -> None:
        """Stay open; the stream's owner ends it."""

    def makefile(self, *_: object) -> "_Reader":
        """Be the file of the socket that `http.client` takes this for."""
        return self


class Tunnel:
    """A connection to an origin through the proxy, or to the proxy itself."""

    def __init__(self, stream: socket.socket, target: str) -> None:
        self.stream = stream
        self._reader = _Reader(socket.SocketIO(stream, "r"))
        self.target = target.removesuffix(":443")  # as it stands in a Host header

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self.stream.close()

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.stream.sendall(data)

    def read(self, method: str = "GET") -> Answer:
        """Read one answer."""
        return read_answer(self._reader, method)

    def read_line(self) -> bytes:
        """Read one line, as it is."""
        return self._reader.readline()

    def read_some(self, size: int) -> bytes:
        """Read so many bytes, or fewer at the connection's end."""
        return self._reader.read(size)

    def read_rest(self) -> bytes:
        """Read all that comes until the other side ends the connection."""
        pieces = []
        try:
            while piece := self._reader.read1(64 * 1024):
                pieces.append(piece)
        except (ConnectionResetError, ssl.SSLError):
            pass
        return b"".join(pieces)

    def request(
        self, method: str, path: str, *fields: str, host: str | None = None, body: bytes = b""
    ) -> Answer:
        """Send one request and read its answer."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host or self.target}", *fields]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return self.read(method)

    def get(self, path: str, *fields: str) -> Answer:
        """Send a GET and read its answer."""
        return self.request("GET", path, *fields)

    def ended(self) -> bool:
        """Tell whether the other side ends the connection without another byte; waits for it."""
        return self.read_rest() == b""


def read_answer(reader: _Reader, method: str = "GET") -> Answer:
    """Read one final answer and leave what follows it unread."""
    response = http.client.HTTPResponse(cast("socket.socket", reader), method=method)
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    body = b"" if method == "CONNECT" and response.status == 200 else response.read()
    return Answer(response.status, response.reason, headers, body)


def connect_head(target: str, *fields: str) -> bytes:
    """Return the head of a CONNECT."""
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def open_tunnel(
    connection: socket.socket,
    target: str,
    context: ssl.SSLContext | None,
    *,
    server_name: str | None = None,
) -> Tunnel:
    """Send a CONNECT on `connection`, then TLS unless there is no context for it."""
    try:
        connection.sendall(connect_head(target))
        # Unbuffered: what follows the answer is not for this reader.
        answer = read_answer(_Reader(socket.SocketIO(connection, "r"), 1), "CONNECT")
        if answer.status == http.client.OK:
            return Tunnel(_secured(connection, target, context, server_name), target)
    except BaseException:
        connection.close()
        raise
    connection.close()
    raise CannotConnectError(answer)


def _secured(
    connection: socket.socket,
    target: str,
    context: ssl.SSLContext | None,
    server_name: str | None,
) -> socket.socket:
    if context is None:
        return connection
    name = server_name or target.rpartition(":")[0].strip("[]")
    return context.wrap_socket(connection, server_hostname=name)
