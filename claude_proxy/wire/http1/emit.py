"""Writes HTTP/1.1 heads from what was read and judged (RFC 9110 7.6, RFC 9112).

The law kept here: upstream gets what the policy saw, and nothing that was meant for this hop.
Names, case and order stay as sent; the framing is written again, at the place where it was.
"""

import re
from collections.abc import Sequence
from enum import Enum
from http import HTTPStatus
from typing import Final

from claude_proxy.wire.http1.head import HOST, OPTION, RequestHead, ResponseHead
from claude_proxy.wire.http1.response import is_bodiless

# RFC 9110 7.6.1, and the fields of this hop that old clients do not list in Connection.
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
_UNDERSCORE: Final = ord("_")  # asking a bytes for an int is ten times as fast as for a bytes
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_VALUE: Final = re.compile(
    rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
)
# Written from what was judged, whatever was sent, under these names where none was sent.
_REWRITTEN: Final = _HOP_BY_HOP | {b"host", b"content-length"}
_OWN_NAMES: Final = {
    b"connection": b"Connection",
    b"content-length": b"Content-Length",
    b"host": b"Host",
    b"transfer-encoding": b"Transfer-Encoding",
    b"upgrade": b"Upgrade",
}


class Framing(Enum):
    """How an answer's end is marked on its way to the client."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


def framing_of(head: ResponseHead, *, method: str, minor: int) -> Framing:
    """Choose the framing for a client whose request had this method and HTTP/1.`minor`."""
    if is_bodiless(head.status, method):
        return Framing.NONE
    if head.length is not None:
        return Framing.LENGTH
    return Framing.CHUNKED if minor else Framing.CLOSE


def emit_request_head(  # noqa: PLR0913 - each is one fact of the hop
    head: RequestHead,
    target: str,
    *,
    host: bytes | None = None,
    drop: frozenset[bytes] = frozenset(),
    extra: Sequence[tuple[bytes, bytes]] = (),
    websocket: bool = False,
) -> bytes:
    """Write the request's head for upstream, without the fields in `drop` (lower-case names).

    `host` replaces the Host that was sent. ValueError is a fault of the caller.
    """
    host = head.host if host is None else host
    if host is None or not HOST.fullmatch(host) or not _VISIBLE.fullmatch(target):
        raise ValueError("a request needs a target and a Host")
    own = {b"host": host}
    if head.chunked:
        own[b"transfer-encoding"] = b"chunked"
    elif head.length is not None:
        own[b"content-length"] = b"%d" % head.length
    if websocket:
        if "websocket" not in head.upgrade:
            raise ValueError("no upgrade to websocket was asked for")
        own[b"connection"] = b"Upgrade"
        own[b"upgrade"] = b"websocket"
    if not head.minor:
        # RFC 9110 10.1.1: from HTTP/1.0 an expectation is ignored, and 100 could not be answered.
        drop = drop | {b"expect"}
    start = f"{head.method} {target} HTTP/1.1".encode("ascii")
    return _emit(start, head, own, drop, extra)


def emit_response_head(  # noqa: PLR0913 - each is one fact of the hop
    head: ResponseHead,
    *,
    framing: Framing,
    keep_alive: bool,
    minor: int = 1,
    drop: frozenset[bytes] = frozenset(),
    extra: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """Write an answer's head for a client of HTTP/1.`minor`, with our own framing."""
    own: dict[bytes, bytes] = {}
    if head.status == HTTPStatus.SWITCHING_PROTOCOLS:
        own[b"connection"] = b"Upgrade"
        own[b"upgrade"] = ", ".join(head.upgrade).encode("ascii")
    elif head.status >= HTTPStatus.OK:
        # RFC 9112 9.3: HTTP/1.1 persists unless told, HTTP/1.0 only if told.
        if not keep_alive:
            own[b"connection"] = b"close"
        elif not minor:
            own[b"connection"] = b"keep-alive"
        if framing is Framing.CHUNKED:
            own[b"transfer-encoding"] = b"chunked"
        elif framing is not Framing.CLOSE and head.length is not None:
            # After HEAD and in 304 it tells the size of what is not sent (RFC 9110 8.6).
            own[b"content-length"] = b"%d" % head.length
    start = b"HTTP/1.1 %d %b" % (head.status, head.phrase)
    return _emit(start, head, own, drop, extra)


def _emit(
    start: bytes,
    head: RequestHead | ResponseHead,
    own: dict[bytes, bytes],
    drop: frozenset[bytes],
    extra: Sequence[tuple[bytes, bytes]],
) -> bytes:
    """Write fields in order: each of `own` at the first place of its name, else at the end."""
    lines = [start]
    skip = head.options | drop
    for field in head.fields:
        name = field[0].lower()
        if name in _REWRITTEN:
            value = own.pop(name, None)
            if value is not None:
                lines.append(field[0] + b": " + value)
        elif name not in skip and not (_UNDERSCORE in name and _is_alias(name, skip)):
            lines.append(b": ".join(field))
    lines += [_OWN_NAMES[name] + b": " + value for name, value in own.items()]
    if extra:
        lines += _lines_of(extra)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _is_alias(name: bytes, skip: frozenset[bytes]) -> bool:
    # CGI, WSGI and Rack hand "X_Y" and "X-Y" to a program as one: what is removed or rewritten
    # under its name must not come through under the other spelling.
    spelt = name.replace(b"_", b"-")
    return spelt in _REWRITTEN or spelt in skip


def _lines_of(extra: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    # Most of these come from configuration: a line break in a credential must not become a field.
    if not all(OPTION.fullmatch(name) and _VALUE.fullmatch(value) for name, value in extra):
        raise ValueError("an extra field is malformed")
    if any(name.lower() in _OWN_NAMES for name, _ in extra):
        raise ValueError("an extra field must not frame or route")
    return [b": ".join(field) for field in extra]
