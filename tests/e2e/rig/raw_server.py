"""Imitates a server of an unknown protocol: it greets first, then echoes in capitals."""

import contextlib
import socket
import threading

from .namespaces import Namespace

GREETING = b"\x00greeting\n"
FAREWELL = b"\xffbye"
_PIECE = 64 * 1024


class RawServer:
    """A server that speaks first, echoes what it gets, and says farewell after the client's end.

    What begins with "last" makes it end its own half first, and read on.
    """

    def __init__(self, internet: Namespace, address: str, port: int) -> None:
        self.received = bytearray()
        self.ended = 0  # connections whose client has ended its half
        self._listener = internet.listen(address, port)
        threading.Thread(target=self._accept, name="raw server", daemon=True).start()

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
            client.sendall(GREETING)
            is_last = False
            while data := client.recv(_PIECE):
                self.received += data
                if is_last:
                    continue
                if data.startswith(b"last"):
                    client.sendall(FAREWELL)
                    client.shutdown(socket.SHUT_WR)
                    is_last = True
                else:
                    client.sendall(data.upper())
            self.ended += 1
            if not is_last:
                client.sendall(FAREWELL)
