"""Reads HTTP/1.1 request heads, refusing whatever upstream could read otherwise (RFC 9112 2-3).

The law kept here is agreement, the fourth: what is judged is the only reading there is. Where
the RFCs let a server choose between repairing and refusing, this one refuses.
"""

import re
from typing import Final

from claude_proxy.wire.http1.head import (
    AUTHORITY,
    HOST,
    OPTION,
    BadMessage,
    RequestHead,
    TargetForm,
    items_of,
    length_of,
    protocols_of,
    read_fields,
    refuse_garbage,
    telling_fields,
)

# Every visible ASCII byte but "#". RFC 3986 also keeps out "<>\^`{|} and the like, but browsers,
# curl, npm and pip send them unencoded in paths and queries, and no reader splits a line there.
_TARGET = rb"[\x21\x22\x24-\x7e]"
# RFC 9112 3. Methods are upper-case here, although RFC 9110 9.1 allows any token: all registered
# ones are, and upstreams that fold case would let "post" walk past a rule that denies "POST".
_METHOD: Final = re.compile(rb"[A-Z][A-Z0-9_-]{0,31}")
_REQUEST_LINE: Final = re.compile(
    rb"([A-Z][A-Z0-9_-]{0,31}) (" + _TARGET + rb"+) HTTP/1\.([01])\r\n"
)
_TARGET_SO_FAR: Final = re.compile(_TARGET + rb"*")
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
_VERSION_SO_FAR: Final = re.compile(rb"(?:H|HT|HTT|HTTP|HTTP/|HTTP/[0-9]\.?[0-9]?)?")
_AUTHORITY_FORM: Final = re.compile(AUTHORITY + rb":[0-9]{1,5}")
_ABSOLUTE_FORM: Final = re.compile(
    rb"([A-Za-z]{1,16})://(" + AUTHORITY + rb"(?::[0-9]{1,5})?)((?:/[^?]*)?)((?:\?.*)?)"
)
_MAX_EMPTY: Final = 2 * len(b"\r\n")

# RFC 9110 7.6.1: a sender must not list in Connection a field meant for all recipients. No client
# does, except to have a proxy strip what was judged; a request that tries is refused.
_END_TO_END: Final = frozenset(
    {
        b"accept",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"cookie",
        b"expect",
        b"host",
        b"origin",
        b"range",
        b"user-agent",
        b"x-api-key",
    }
)


def read_request_head(buffer: bytearray, limit: int) -> RequestHead | None:
    """Take one request head from the buffer's front; None while it has not come whole.

    What cannot become a request any more is refused without waiting for its end.
    """
    start = _after_empty_lines(buffer)
    end = buffer.find(b"\r\n\r\n", start, start + limit)
    if end < 0:
        part = bytes(buffer[start : start + limit])
        line, crlf, _ = part.partition(b"\r\n")
        if crlf:
            _match_request_line(line + crlf)
        else:
            _check_beginning(line.removesuffix(b"\r"))
        refuse_garbage(part, 400)
        if len(buffer) - start >= limit:
            if crlf:
                raise BadMessage(431, "the request head is too large")
            raise BadMessage(414, "the request target is too long")
        return None
    head = bytes(buffer[start : end + 2])
    line_match = _match_request_line(head)
    method, target, minor = line_match.groups()
    request = _request_of(method, target, 1 if minor == b"1" else 0)
    request.fields = read_fields(head[line_match.end() :], 400)
    _interpret_request(request)
    del buffer[: end + 4]
    return request


def _after_empty_lines(buffer: bytearray) -> int:
    # RFC 9112 2.2: a server should ignore at least one empty line before a request; old clients
    # send one after a body. They stay in the buffer until the head is whole, so that the count
    # is the same however the bytes were split.
    start = 0
    while start < _MAX_EMPTY and buffer.startswith(b"\r\n", start):
        start += 2
    return start


def _match_request_line(head: bytes) -> re.Match[bytes]:
    """Match the request line at the head's front, or say what is wrong with it, left to right."""
    line_match = _REQUEST_LINE.match(head)
    if line_match is not None:
        return line_match
    if _VERSION.fullmatch(_check_beginning(head.partition(b"\r\n")[0])):
        raise BadMessage(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    raise BadMessage(400, "the request line is malformed")


def _check_beginning(line: bytes) -> bytes:
    """Refuse the beginning of a line that cannot become a request line; return its version."""
    method, space, rest = line.partition(b" ")
    if not _METHOD.fullmatch(method) and (method or space):
        raise BadMessage(400, "the request does not begin with a method")
    target, space, version = rest.partition(b" ")
    if not _TARGET_SO_FAR.fullmatch(target) or (space and not target):
        raise BadMessage(400, "the request target is malformed")
    if not _VERSION_SO_FAR.fullmatch(version):
        raise BadMessage(400, "the request line is malformed")
    return version


def _request_of(method: bytes, target: bytes, minor: int) -> RequestHead:
    """Settle which form the target has; each method admits its own (RFC 9112 3.2)."""
    request = RequestHead(
        method=method.decode("ascii"),
        target=target.decode("ascii"),
        form=TargetForm.ORIGIN,
        minor=minor,
        fields=[],
    )
    if method == b"CONNECT":
        if not _AUTHORITY_FORM.fullmatch(target):
            raise BadMessage(400, "CONNECT needs a target of host and port")
        request.form = TargetForm.AUTHORITY
        request.authority = request.target
    elif target.startswith(b"/"):
        request.origin_target = request.target
    elif target == b"*":
        if method != b"OPTIONS":
            raise BadMessage(400, "only OPTIONS may ask for *")
        request.form = TargetForm.ASTERISK
        request.origin_target = "*"
    else:
        _read_absolute_form(request, target)
    return request


def _read_absolute_form(request: RequestHead, target: bytes) -> None:
    parts = _ABSOLUTE_FORM.fullmatch(target)
    if parts is None:
        raise BadMessage(400, "the request target has none of the four forms")
    scheme, authority, path, query = (part.decode("ascii") for part in parts.groups())
    request.form = TargetForm.ABSOLUTE
    request.scheme = scheme.lower()
    request.authority = authority
    if path or query or request.method != "OPTIONS":
        request.origin_target = (path or "/") + query  # RFC 9112 3.2.1
    else:
        request.origin_target = "*"  # RFC 9112 3.2.4


def _interpret_request(request: RequestHead) -> None:
    """Settle what the fields say about routing, framing and the connection."""
    telling = telling_fields(request.fields)
    _settle_host(request, telling.get(b"host", []))
    _settle_framing(
        request, telling.get(b"content-length", []), telling.get(b"transfer-encoding", [])
    )
    _settle_connection(request, telling.get(b"connection", []), telling.get(b"upgrade", []))
    if request.minor and b"expect" in telling:  # RFC 9110 10.1.1: ignored in HTTP/1.0
        request.expects_continue = b"100-continue" in items_of(telling[b"expect"])


def _settle_host(request: RequestHead, hosts: list[bytes]) -> None:
    # RFC 9112 3.2: exactly one valid Host, or 400. HTTP/1.0 knew none.
    if len(hosts) > 1:
        raise BadMessage(400, "there are several Host fields")
    if not hosts:
        if request.minor:
            raise BadMessage(400, "there is no Host field")
    elif not HOST.fullmatch(hosts[0]):
        raise BadMessage(400, "the Host field is malformed")
    else:
        request.host = hosts[0]


def _settle_framing(request: RequestHead, lengths: list[bytes], codings: list[bytes]) -> None:
    if lengths and codings:
        # RFC 9112 6.3 lets Transfer-Encoding win; that disagreement is request smuggling itself.
        raise BadMessage(400, "there are Content-Length and Transfer-Encoding")
    if len(lengths) > 1 or len(codings) > 1:
        # RFC 9110 8.6 lets equal repetitions be folded; two readers may fold differently.
        raise BadMessage(400, "Content-Length or Transfer-Encoding is repeated")
    if lengths:
        request.length = length_of(lengths[0], 400)
    if codings:
        if not request.minor:
            raise BadMessage(400, "HTTP/1.0 has no Transfer-Encoding")  # RFC 9112 6.1
        if codings[0].lower() != b"chunked":
            raise BadMessage(501, "only the transfer coding chunked is known here")
        request.chunked = True
    if request.form is TargetForm.AUTHORITY and (request.chunked or request.length):
        # RFC 9110 9.3.6: content of a CONNECT means nothing, and readers differ on skipping it.
        raise BadMessage(400, "CONNECT has no content")


def _settle_connection(request: RequestHead, connection: list[bytes], upgrade: list[bytes]) -> None:
    request.options = options = frozenset(items_of(connection))
    if not all(map(OPTION.fullmatch, options)):
        raise BadMessage(400, "the Connection field is malformed")
    if options & _END_TO_END:
        raise BadMessage(400, "Connection lists a field that is not the connection's")
    # RFC 9112 9.3
    request.keep_alive = b"close" not in options and (
        request.minor == 1 or b"keep-alive" in options
    )
    if upgrade:
        _settle_upgrade(request, protocols_of(upgrade, 400))


def _settle_upgrade(request: RequestHead, protocols: tuple[str, ...]) -> None:
    if request.chunked or request.length:
        # RFC 9110 7.8 has the content come before the switch; some readers (httptools, and so
        # what is built on it) take it for the next request. No real client sends any.
        raise BadMessage(400, "an upgrade has no content")
    if b"upgrade" not in request.options or not request.minor:
        return  # RFC 9110 7.8: ignored
    request.upgrade = protocols
    if "websocket" in protocols and request.method != "GET":
        raise BadMessage(400, "a WebSocket begins with GET")  # RFC 6455 4.1
