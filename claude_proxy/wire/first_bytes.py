"""First bytes of a client where any protocol may be spoken: TLS and HTTP, or anything else.

Agreement: TLS and HTTP name a host inside (server name, Host field), which could be another one of
the same server. So a ClientHello is read completely before any of it passes, and a request line of
HTTP never passes whole: a server acts on no request before its line is complete. Sans-io.
"""

import re
from typing import Final

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.wire.client_hello import ClientHello, HelloReader, starts_like_tls

# Servers take request lines of about that length; a longer first line is refused as one.
MAX_LINE: Final = 8 * 1024

_LINE_BREAKS: Final = b"\r\n"
_HTTP_LINE: Final = lazy_pattern(rb"[^\n]*[ \t]HTTP/[0-9]", re.IGNORECASE).match
# What a request line holds; a tab may stand for a space, and bytes above 0x7f occur in paths.
_TEXT: Final = lazy_pattern(rb"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*").match


class HttpFoundError(ValueError):
    """The first line is one of an HTTP request, or could be."""


class FirstBytes:
    """Collects a client's first bytes until they are known not to name another host.

    After `is_over`, do not call `feed` again.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._kept = bytearray()
        self._passed = 0
        self._reader: HelloReader | None = None

    def feed(self, data: bytes) -> bytes | ClientHello:
        """Return what may pass now, or the ClientHello that has to be judged before `release`.

        HttpFoundError; HelloUnreadableError.
        """
        self._kept += data
        if self._reader is None:
            is_tls = starts_like_tls(self._kept)
            if is_tls is None:
                return b""
            if not is_tls:
                return self._unless_http()
            self._reader = HelloReader()
            data = bytes(self._kept)
        return self._reader.feed(data) or b""

    def release(self) -> bytes:
        """Return all that has not passed yet; what comes next is not looked at."""
        self.is_over = True
        ready = bytes(self._kept[self._passed :])
        self._kept.clear()
        return ready

    def _unless_http(self) -> bytes:
        is_http = begins_http(self._kept)
        if is_http:
            raise HttpFoundError("the client speaks HTTP")
        if is_http is False:
            return self.release()
        ready = bytes(self._kept[self._passed :])
        self._passed = len(self._kept)
        return ready


def begins_http(data: bytes | bytearray) -> bool | None:
    """Return whether `data` begins with a request line of HTTP, in any version and spelling.

    None while the first line is not complete. Empty lines before it are skipped, as servers do
    (RFC 9112 section 2.2).
    """
    line, end, _ = bytes(data).lstrip(_LINE_BREAKS).partition(b"\n")
    text = _TEXT(line)
    if text is None or _HTTP_LINE(text[0]):
        return True
    if end or text.end() < len(line):
        return False
    return True if len(data) > MAX_LINE else None
