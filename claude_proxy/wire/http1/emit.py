"""HTTP/1.1 head writer: requests for upstream, responses for the client; sans-io.

Agreement: the upstream receives what the policy judged, without the fields that are only for this
hop (RFC 9110 section 7.6). The names, case and order of fields stay as sent. Framing fields are
written again from the parsed values, at their old place.
"""

from collections.abc import Sequence
from enum import Enum
from http import HTTPStatus
from typing import Final

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.wire.http1.head import HOST, OPTION, Fields, RequestHead, ResponseHead
from claude_proxy.wire.http1.response import is_bodiless

# RFC 9110 section 7.6.1, and hop-by-hop fields that old clients do not list in Connection.
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
_UNDERSCORE: Final = ord("_")  # `int in bytes` is ten times as fast as `bytes in bytes`
_VISIBLE: Final = lazy_pattern(r"[\x21-\x7e]+")
_VALUE: Final = lazy_pattern(
    rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
)
# Always written from the parsed values. Where the sender had no such field, it gets the name below.
_REWRITTEN: Final = _HOP_BY_HOP | {b"host", b"content-length"}
_OWN_NAMES: Final = {
    b"connection": b"Connection",
    b"content-length": b"Content-Length",
    b"host": b"Host",
    b"transfer-encoding": b"Transfer-Encoding",
    b"upgrade": b"Upgrade",
}


class Framing(Enum):
    """How the end of a response body is marked for the client."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


def framing_of(head: ResponseHead, *, method: str, minor: int) -> Framing:
    """Return the framing of a response to a request with `method` and version HTTP/1.`minor`."""
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
    """Return the request head for upstream, without the fields in `drop` (lower-case names).

    `host` replaces the Host that was sent; `extra` fields are added at the end. ValueError means a
    mistake in the calling code.
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
            raise ValueError("the request does not ask for an upgrade to websocket")
        own[b"connection"] = b"Upgrade"
        own[b"upgrade"] = b"websocket"
    if not head.minor:
        # RFC 9110 section 10.1.1: Expect is ignored in HTTP/1.0, whose clients do not know 100.
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
    """Return the response head for a client that speaks HTTP/1.`minor`, with its own framing."""
    own: dict[bytes, bytes] = {}
    if head.status == HTTPStatus.SWITCHING_PROTOCOLS:
        own[b"connection"] = b"Upgrade"
        own[b"upgrade"] = ", ".join(head.upgrade).encode("ascii")
    elif head.status >= HTTPStatus.OK:
        # RFC 9112 section 9.3: HTTP/1.1 keeps the connection open by default, HTTP/1.0 closes it.
        if not keep_alive:
            own[b"connection"] = b"close"
        elif not minor:
            own[b"connection"] = b"keep-alive"
        if framing is Framing.CHUNKED:
            own[b"transfer-encoding"] = b"chunked"
        elif framing is not Framing.CLOSE and head.length is not None:
            # RFC 9110 section 8.6: for HEAD and in a 304, the size of the content that is not sent.
            own[b"content-length"] = b"%d" % head.length
    start = b"HTTP/1.1 %d %b" % (head.status, head.phrase)
    return _emit(start, head, own, drop, extra)


def end_to_end_fields(head: ResponseHead) -> Fields:
    """Return a response's fields for a next hop that has a framing of its own, such as HTTP/2.

    Those of this hop are left out; Content-Length is what was read of it (RFC 9113 section 8.2.2).
    """
    fields: Fields = []
    for name, value in head.fields:
        known = name.lower()
        if known == b"content-length":
            if head.length is not None:
                fields.append((name, b"%d" % head.length))
        elif known not in _HOP_BY_HOP and known not in head.options:
            fields.append((name, value))
    return fields


def _emit(
    start: bytes,
    head: RequestHead | ResponseHead,
    own: dict[bytes, bytes],
    drop: frozenset[bytes],
    extra: Sequence[tuple[bytes, bytes]],
) -> bytes:
    """Return the head: fields in order, each of `own` at the first field of its name or the end."""
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
    # CGI, WSGI and Rack do not distinguish "X_Y" from "X-Y": a field that is removed or rewritten
    # under one spelling must not get through under the other.
    hyphenated = name.replace(b"_", b"-")
    return hyphenated in _REWRITTEN or hyphenated in skip


def _lines_of(extra: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    # Credentials are added here: a line break in one must not start another field.
    if not all(OPTION.fullmatch(name) and _VALUE.fullmatch(value) for name, value in extra):
        raise ValueError("an extra field is malformed")
    if any(name.lower() in _OWN_NAMES for name, _ in extra):
        raise ValueError("an extra field must not change framing or routing")
    return [b": ".join(field) for field in extra]
