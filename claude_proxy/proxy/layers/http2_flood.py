"""HTTP/2 flood meter: how many frames a peer may send that cost work and move nothing; pure.

RFC 9113 section 10.5 names them, and CVE-2023-44487 (rapid reset), CVE-2025-8671 (resets that the
other side is made to send) and CVE-2019-9511 to 9518 (pings, settings, priorities, empty frames)
show what they do. The bounds hold for a window of some seconds, which `renew` begins.
"""

from h2.errors import ErrorCodes

from claude_proxy.proxy.layers.http2_frames import (
    CONTINUATION,
    DATA,
    END_STREAM,
    HEADERS,
    PADDED,
    SETTINGS,
    Frame,
    Http2Error,
)

# A browser that leaves a page resets what was under way: 100 streams at most, as more are not open
# at once. Twice that is no use of HTTP/2 that is known.
RESETS = 200
# Frames that move nothing. A ping a second, or the settings and priorities of a page, are far less.
IDLE_FRAMES = 1000
# A client that takes each DATA frame by one WINDOW_UPDATE for the stream and one for the
# connection sends two; others send them for parts of one.
IDLE_FRAMES_PER_USEFUL = 10
# Over the whole connection: each setting that is not known is kept by the h2 library.
SETTINGS_ENTRIES = 512
_ENTRY = 6  # bytes of a setting
_FIRST = 9  # the place of the payload's first byte, which is the length of the padding


class FloodMeter:
    """Counts the frames of one peer; Http2Error with ENHANCE_YOUR_CALM: there are too many."""

    __slots__ = ("_entries", "_idle", "_resets", "_useful")

    def __init__(self) -> None:
        self._idle = self._useful = self._resets = self._entries = 0

    def renew(self) -> None:
        """Begin the next window."""
        self._idle = self._useful = self._resets = 0

    @property
    def is_zero(self) -> bool:
        """Whether nothing was counted in this window."""
        return not (self._idle or self._useful or self._resets)

    def received(self, frame: Frame) -> None:
        """Count a frame of the peer."""
        kind = frame.kind
        if kind == HEADERS or (kind == DATA and _moves_something(frame)):
            self._useful += 1
            return
        if kind == SETTINGS:
            self._entries += frame.size // _ENTRY
            if self._entries > SETTINGS_ENTRIES:
                raise _flood("settings")
        self._idle += 1
        if self._idle > IDLE_FRAMES + IDLE_FRAMES_PER_USEFUL * self._useful:
            raise _flood("empty frames" if kind in {DATA, CONTINUATION} else "control frames")

    def sent_data(self) -> None:
        """Count a DATA frame to the peer, which it answers by window updates."""
        self._useful += 1

    def reset(self) -> None:
        """Count a stream that the peer reset, or that we reset through its fault."""
        self._resets += 1
        if self._resets > RESETS:
            raise _flood("resets of streams")


def _moves_something(data: Frame) -> bool:
    padding = 1 + data.raw[_FIRST] if data.flags & PADDED and data.size else 0
    return data.size > padding or bool(data.flags & END_STREAM)


def _flood(of: str) -> Http2Error:
    return Http2Error(ErrorCodes.ENHANCE_YOUR_CALM, f"too many {of}")
