"""Probe server: an HTTPS server on the loopback interface that records every request.

The caller provides a certificate for each name. Requests are identified by SNI and path, never by
time.
"""

import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_LIMIT_S: Final = 10.0
_PATIENCE_S: Final = 3.0
_HEAD_LIMIT: Final = 64 * 1024
_BODY: Final = b"claude-proxy doctor\n"

type Identity = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]
type Identify = Callable[[str], Identity]


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One connection: its SNI, and its request unless the handshake failed."""

    name: str
    method: str = ""  # "" if no request came
    path: str = ""
    host: str = ""
    alert: str = ""  # why no request came
    secured: bool = True  # whether the handshake succeeded, as far as a server can tell
    fields: tuple[tuple[str, str], ...] = ()  # of the request, names in lower case

    @property
    def trusting(self) -> bool:
        """Whether the client sent a request, which it does only if it trusts the certificate."""
        return bool(self.method)


def _ok_status(_: str) -> int:
    return 200


def _default_answer(_: ReceivedRequest) -> tuple[str, bytes]:
    return "", _BODY


class ProbeServer:
    """An HTTPS server on 127.0.0.1; by default it gives every path the same response."""

    def __init__(
        self,
        identify: Identify,
        *,
        status: Callable[[str], int] = _ok_status,
        answer: Callable[[ReceivedRequest], tuple[str, bytes]] = _default_answer,
    ) -> None:
        """Serve; `answer` returns a header field, or none, and the body."""
        self._answer_to = answer
        self._identify = identify
        self._status = status
        self._lock = threading.Condition()
        self._requests: list[ReceivedRequest] = []
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listener.getsockname()[1])

    def requests(self) -> list[ReceivedRequest]:
        """Return the requests so far."""
        with self._lock:
            return list(self._requests)

    def wait_for(self, name: str, first: int = 0) -> list[ReceivedRequest]:
        """Return the requests for a name, from the given index on.

        A client may have ended before its connection: this waits for the first one.
        """
        with self._lock:

            def found() -> list[ReceivedRequest]:
                return [each for each in self._requests[first:] if each.name == name]

            return self._lock.wait_for(found, _PATIENCE_S)

    def __enter__(self) -> Self:
        # The timeout of the listener lets the thread notice that it should end.
        self._listener.settimeout(0.2)
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        for thread in list(self._threads):
            thread.join(_LIMIT_S)
        self._listener.close()

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self._start(partial(self._serve, connection))

    def _serve(self, connection: socket.socket) -> None:
        names: list[str] = []
        with ExitStack() as stack:
            stack.callback(connection.close)
            connection.settimeout(_LIMIT_S)
            secured = False
            try:
                tls = self._context(names).wrap_socket(connection, server_side=True)
                stack.callback(tls.close)
                secured = True
                self._answer(tls, names)
            except (OSError, ValueError) as problem:
                reason = getattr(problem, "reason", None) or type(problem).__name__
                name = names[0] if names else ""
                self._record(ReceivedRequest(name, alert=str(reason), secured=secured))

    def _context(self, names: list[str]) -> ssl.SSLContext:
        """Return a TLS context that records the SNI and uses its certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

        def choose(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
            names.append(name or "")
            if not name:
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            tls.context = self._context_of(name)
            return None

        context.sni_callback = choose
        return context

    def _answer(self, tls: ssl.SSLSocket, names: list[str]) -> None:
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _HEAD_LIMIT:
            piece = tls.recv(4096)
            if not piece:
                # TLS 1.3: a client that does not trust the certificate ends only now.
                raise ConnectionResetError("no request came")
            head += piece
        lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        method, path, *_ = [*lines[0].split(" "), ""]
        fields = [_field_of(line) for line in lines[1:] if ":" in line]
        host = dict(fields).get("host", "").lower()
        request = ReceivedRequest(names[0], method, path, host, fields=tuple(fields))
        self._record(request)
        self._take_body(tls, len(head.partition(b"\r\n\r\n")[2]), dict(fields))
        status = self._status(path)
        field, body = self._answer_to(request)
        words = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
        answer = "\r\n".join([*words, *([field] if field else []), "", ""])
        tls.sendall(answer.encode() + (b"" if method == "HEAD" else body))
        with suppress(OSError):
            tls.unwrap()

    @staticmethod
    def _take_body(tls: ssl.SSLSocket, read: int, fields: dict[str, str]) -> None:
        """Read the body: a close with unread bytes would abort the response as well."""
        length = fields.get("content-length", "")
        left = (int(length) if length.isdecimal() else 0) - read
        while left > 0 and (piece := tls.recv(min(left, _HEAD_LIMIT))):
            left -= len(piece)

    def _record(self, request: ReceivedRequest) -> None:
        with self._lock:
            self._requests.append(request)
            self._lock.notify_all()

    def _context_of(self, name: str) -> ssl.SSLContext:
        with self._lock:
            found = self._contexts.get(name)
            if found is None:
                found = self._contexts[name] = server_context(self._identify(name))
            return found


def _field_of(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip()


def server_context(identity: Identity) -> ssl.SSLContext:
    """Return the server's TLS context for a certificate; `ssl` reads only files."""
    certificate, key = identity
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    descriptor, name = tempfile.mkstemp(prefix="claude-proxy-doctor-")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret + certificate.public_bytes(Encoding.PEM))
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()
    return context
