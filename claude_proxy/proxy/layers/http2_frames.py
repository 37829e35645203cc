"""HTTP/2 frame reader: one whole frame at a time, within bounds (RFC 9113 sections 4 and 6.10).

The h2 library works off all frames of a chunk at once, and waits for the end of a frame before it
looks at its length. Read one by one, they can be counted and spread over several turns of the event
loop, and what is too large is refused at its first bytes.
"""

from typing import Final, NamedTuple

from h2.errors import ErrorCodes

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x01
PADDED: Final = 0x08

# What SETTINGS_MAX_FRAME_SIZE offers: large enough that a body costs little per byte.
MAX_FRAME: Final = 64 * 1024
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER: Final = 9  # bytes


class Http2Error(Exception):
    """A fault of the peer that ends its connection: the code for GOAWAY, and why."""

    def __init__(self, code: ErrorCodes | int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Frame(NamedTuple):
    """One whole frame, as it came."""

    kind: int
    flags: int
    stream: int
    raw: bytes  # with its header of nine bytes

    @property
    def size(self) -> int:
        """The bytes of its payload."""
        return len(self.raw) - _HEADER


class FrameReader:
    """Splits what a peer sends into frames; sans-io.

    `block_limit` bounds a header block in bytes, over all its CONTINUATION frames.
    """

    def __init__(self, *, server: bool, block_limit: int) -> None:
        self._buffer = bytearray()
        self._position = 0
        self._preface = server  # whether the client's preface is still to come
        self._block_limit = block_limit
        self._block = 0  # bytes of the header block that is being read

    @property
    def waiting(self) -> int:
        """The bytes that are buffered, of whole frames or not."""
        return len(self._buffer) - self._position

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer."""
        self._buffer += data

    def next(self) -> Frame | None:
        """Return the next frame; None: it is not whole. Http2Error: it is too large."""
        start = self._position
        if self._preface:
            return self._read_preface()
        if len(self._buffer) - start < _HEADER:
            self._compact()
            return None
        header = self._buffer[start : start + _HEADER]
        size = int.from_bytes(header[:3])
        if size > MAX_FRAME:
            raise Http2Error(ErrorCodes.FRAME_SIZE_ERROR, "a frame is too large")
        end = start + _HEADER + size
        if len(self._buffer) < end:
            self._compact()
            return None
        stream = int.from_bytes(header[5:]) & 0x7FFF_FFFF
        frame = Frame(header[3], header[4], stream, bytes(self._buffer[start:end]))
        self._position = end
        if frame.kind in {HEADERS, PUSH_PROMISE, CONTINUATION}:
            self._bound_block(frame)
        return frame

    def _read_preface(self) -> Frame | None:
        """Return the preface as a frame of no kind, once it is whole."""
        begun = bytes(self._buffer[: len(_PREFACE)])
        if not _PREFACE.startswith(begun):
            raise Http2Error(ErrorCodes.PROTOCOL_ERROR, "the connection has no HTTP/2 preface")
        if len(begun) < len(_PREFACE):
            return None
        self._preface = False
        self._position = len(_PREFACE)
        return Frame(-1, 0, 0, begun)

    def _bound_block(self, frame: Frame) -> None:
        self._block = frame.size if frame.kind != CONTINUATION else self._block + frame.size
        if self._block > self._block_limit:
            raise Http2Error(ErrorCodes.ENHANCE_YOUR_CALM, "a header block is too large")

    def _compact(self) -> None:
        if self._position:
            del self._buffer[: self._position]
            self._position = 0
