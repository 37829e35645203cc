"""Error responses of a relay whose proxy is unreachable, in the client's own protocol.

Sans-io. An HTTP client gets a 502, a SOCKS5 client a general failure (RFC 1928, section 6); any
other connection is closed without a response. The response contains nothing else: paths and
addresses of the host are not revealed. Imports nothing heavy, because the relay must start in
milliseconds.
"""

from collections.abc import Callable

HEAD_LIMIT = 16 * 1024  # most bytes of a request head that are buffered before the response

_REASON = "proxy-unreachable"
_BODY = (
    "Failed by claude-proxy: the relay is running, but the proxy behind it is not, or it is "
    "restarting; try again in a moment.\n"
)
_HEAD = (
    f"HTTP/1.1 502 Bad Gateway ({_REASON})\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    f"Content-Length: {len(_BODY)}\r\n"
    "Cache-Control: no-store\r\n"
    f"X-Claude-Proxy-Reason: {_REASON}\r\n"
    "Connection: close\r\n\r\n"
)

# RFC 1928, and RFC 1929 for a client that offers only a password
_SOCKS5 = 0x05
_NO_AUTHENTICATION = 0x00
_PASSWORD = 0x02
_GENERAL_FAILURE = b"\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00"
_ADDRESS_SIZES = {0x01: 4, 0x04: 16}  # 0x03, a name, carries its own size

type _Step = Callable[[], bytes | None]


class Unavailable:
    """The response to one client: `feed` it what the client sends, and send what it returns."""

    def __init__(self) -> None:
        self.over = False  # nothing more will be answered
        self._buffer = bytearray()
        self._step: _Step = self._first

    def feed(self, data: bytes | bytearray) -> bytes:
        """Return what to send to the client after `data`."""
        if self.over:
            return b""
        self._buffer += data
        answer = b""
        # A step returns None to wait, or answers and sets the next step.
        while (part := self._step()) is not None:
            answer += part
        return answer

    def _end(self, answer: bytes = b"") -> bytes:
        self.over = True
        self._buffer.clear()
        self._step = self._nothing
        return answer

    def _nothing(self) -> None:
        """Ignore further data: the response is complete."""

    def _first(self) -> bytes | None:
        if not self._buffer:
            return None
        if self._buffer[0] == _SOCKS5:
            self._step = self._greeting
        elif 0x41 <= self._buffer[0] <= 0x5A:  # noqa: PLR2004 - every method begins with A to Z
            self._step = self._http
        else:
            return self._end()
        return b""

    def _http(self) -> bytes | None:
        buffer = self._buffer
        line, separator, _ = buffer.partition(b"\n")
        # A client that gets a response before it has sent its whole head may never read it.
        whole = b"\r\n\r\n" in buffer or b"\n\n" in buffer or len(buffer) >= HEAD_LIMIT
        if not whole and (not separator or b" HTTP/1." in line):
            return None
        if b" HTTP/1." not in line:  # another protocol that begins with a letter, such as SSH
            return self._end()
        return self._end((_HEAD if line.startswith(b"HEAD ") else _HEAD + _BODY).encode())

    def _take(self, size: int) -> bytes | None:
        if len(self._buffer) < size:
            return None
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _greeting(self) -> bytes | None:
        size = 2 + self._buffer[1] if len(self._buffer) > 1 else 2
        if len(self._buffer) < 2 or (message := self._take(size)) is None:  # noqa: PLR2004
            return None
        methods = message[2:]
        if _NO_AUTHENTICATION in methods:
            self._step = self._request
            return bytes((_SOCKS5, _NO_AUTHENTICATION))
        if _PASSWORD in methods:
            self._step = self._user
            return bytes((_SOCKS5, _PASSWORD))
        return self._end(b"\x05\xff")

    def _user(self) -> bytes | None:
        buffer = self._buffer
        if len(buffer) < 2 or len(buffer) < 3 + buffer[1]:  # noqa: PLR2004 - version and a length
            return None
        if self._take(3 + buffer[1] + buffer[2 + buffer[1]]) is None:
            return None
        self._step = self._request
        return b"\x01\x00"

    def _request(self) -> bytes | None:
        buffer = self._buffer
        if len(buffer) < 5:  # noqa: PLR2004 - up to the first byte of the address
            return None
        size = _ADDRESS_SIZES.get(buffer[3], 1 + buffer[4] if buffer[3] == 0x03 else 1)  # noqa: PLR2004
        if self._take(4 + size + 2) is None:
            return None
        return self._end(_GENERAL_FAILURE)
