"""Opening of a tunnel: the CONNECT that a relay sends for a client that knows of no proxy; sans-io.

Law kept: one judge. The relay decides nothing: it asks the proxy for a host and port, as a client
with proxy settings does (RFC 9110, section 9.3.6), and copies bytes only after a 2xx answer.
Imports nothing heavy, because the relay must start in milliseconds.
"""

from claude_proxy.sandbox.relay.unavailable import HEAD_LIMIT

_END = b"\r\n\r\n"
_REASON = b"x-claude-proxy-reason:"
_LONGEST_REASON = 80
_HTTP_PORT = ":80"
_STATUS_WORDS = 2  # "HTTP/1.1 200", before the phrase


class TunnelRefusedError(Exception):
    """The proxy opened no tunnel; its text is the reason, fit to be printed."""


class TunnelOpening:
    """The request for one tunnel, and the reading of its answer."""

    def __init__(self, target: str) -> None:
        self.target = target  # "host:port"
        self.request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("ascii")
        self._head = bytearray()

    @property
    def is_http(self) -> bool:
        """Whether clients at this port would understand an answer of the proxy's."""
        return self.target.endswith(_HTTP_PORT)

    @property
    def answer(self) -> bytes:
        """What the proxy has answered so far."""
        return bytes(self._head)

    def feed(self, data: bytes) -> bytes | None:
        """Return what follows the head of the answer, once it is complete; None until then.

        Raises TunnelRefusedError if the answer is anything but a 2xx.
        """
        self._head += data
        head, end, rest = bytes(self._head).partition(_END)
        if not end:
            if len(self._head) > HEAD_LIMIT:
                raise TunnelRefusedError("its answer has no end")
            return None
        lines = head.split(b"\r\n")
        words = lines[0].split(None, _STATUS_WORDS) or [b""]
        status = words[1] if len(words) >= _STATUS_WORDS else b""
        if not words[0].startswith(b"HTTP/1.") or len(status) != 3 or not status.startswith(b"2"):  # noqa: PLR2004
            raise TunnelRefusedError(_reason_in(lines))
        return rest


def _reason_in(lines: list[bytes]) -> str:
    """Return the proxy's reason, else its status line."""
    for line in lines[1:]:
        if line.lower().startswith(_REASON):
            return _printable(line[len(_REASON) :])
    return _printable(lines[0])


def _printable(text: bytes) -> str:
    shown = "".join(char for char in text.decode("ascii", "replace").strip() if char.isprintable())
    return shown[:_LONGEST_REASON] or "no reason was given"
