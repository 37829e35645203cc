"""HTTP/1.1 request head parser (RFC 9112 sections 2 and 3); sans-io.

Agreement: a request that an upstream could read differently is refused. Where the RFCs let a
server choose between repairing and refusing, this parser refuses.
"""

import re
from typing import Final

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.wire.http1.head import (
    AUTHORITY,
    HOST,
    OPTION,
    BadMessage,
    RequestHead,
    TargetForm,
    framing_fields,
    items_of,
    length_of,
    protocols_of,
    read_fields,
    refuse_invalid_bytes,
)

# Every visible ASCII byte except "#". RFC 3986 also excludes "<>\^`{|} and others, but browsers,
# curl, npm and pip send them unencoded in paths and queries, and no parser splits a line there.
_TARGET = rb"[\x21\x22\x24-\x7e]"
# RFC 9112 section 3. RFC 9110 section 9.1 allows any token as a method, but here it must be upper
# case, as all registered ones are: for an upstream that ignores case, "post" would bypass a rule
# that denies "POST".
_METHOD: Final = lazy_pattern(rb"[A-Z][A-Z0-9_-]{0,31}")
_REQUEST_LINE: Final = lazy_pattern(
    rb"([A-Z][A-Z0-9_-]{0,31}) (" + _TARGET + rb"+) HTTP/1\.([01])\r\n"
)
_TARGET_START: Final = lazy_pattern(_TARGET + rb"*")
_VERSION: Final = lazy_pattern(rb"HTTP/[0-9]\.[0-9]")
_VERSION_START: Final = lazy_pattern(rb"(?:H|HT|HTT|HTTP|HTTP/|HTTP/[0-9]\.?[0-9]?)?")
_AUTHORITY_FORM: Final = lazy_pattern(AUTHORITY + rb":[0-9]{1,5}")
_ABSOLUTE_FORM: Final = lazy_pattern(
    rb"([A-Za-z]{1,16})://(" + AUTHORITY + rb"(?::[0-9]{1,5})?)((?:/[^?]*)?)((?:\?.*)?)"
)
_MAX_EMPTY_LINE_BYTES: Final = 2 * len(b"\r\n")

# RFC 9110 section 7.6.1: Connection must not list a field that is meant for all recipients. Only
# an attack does, to make a proxy remove a field that was judged; such a request is refused.
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
    """Remove a request head from the front of `buffer`; None while it is incomplete.

    `limit` is the largest head in bytes. BadMessage as soon as the bytes cannot become a valid
    head; `buffer` is then unchanged.
    """
    start = _after_empty_lines(buffer)
    end = buffer.find(b"\r\n\r\n", start, start + limit)
    if end < 0:
        part = bytes(buffer[start : start + limit])
        line, crlf, _ = part.partition(b"\r\n")
        if crlf:
            _match_request_line(line + crlf)
        else:
            _check_incomplete_line(line.removesuffix(b"\r"))
        refuse_invalid_bytes(part, 400)
        if len(buffer) - start >= limit:
            if crlf:
                raise BadMessage(431, "the request head is too large")
            raise BadMessage(414, "the request target is too long")
        return None
    head = bytes(buffer[start : end + 2])
    line_match = _match_request_line(head)
    method, target, minor = line_match.groups()
    request = _request_of(method, target, 1 if minor == b"1" else 0)
    request.fields = read_fields(head[line_match.end() :])
    _interpret_request(request)
    del buffer[: end + 4]
    return request


def _after_empty_lines(buffer: bytearray) -> int:
    # RFC 9112 section 2.2: a server should ignore at least one empty line before a request; old
    # clients send one after a body. They stay in the buffer until the head is complete, so that
    # the count does not depend on how the bytes were split over reads.
    start = 0
    while start < _MAX_EMPTY_LINE_BYTES and buffer.startswith(b"\r\n", start):
        start += 2
    return start


def _match_request_line(head: bytes) -> re.Match[bytes]:
    """Return the match of the request line; BadMessage names the first fault from the left."""
    line_match = _REQUEST_LINE.match(head)
    if line_match is not None:
        return line_match
    if _VERSION.fullmatch(_check_incomplete_line(head.partition(b"\r\n")[0])):
        raise BadMessage(505, "only HTTP/1.1 and HTTP/1.0 are supported here")
    raise BadMessage(400, "the request line is malformed")


def _check_incomplete_line(line: bytes) -> bytes:
    """Raise BadMessage if `line` is not the start of a request line; return its version part."""
    method, space, rest = line.partition(b" ")
    if not _METHOD.fullmatch(method) and (method or space):
        raise BadMessage(400, "the request does not begin with a method")
    target, space, version = rest.partition(b" ")
    if not _TARGET_START.fullmatch(target) or (space and not target):
        raise BadMessage(400, "the request target is malformed")
    if not _VERSION_START.fullmatch(version):
        raise BadMessage(400, "the request line is malformed")
    return version


def _request_of(method: bytes, target: bytes, minor: int) -> RequestHead:
    """Return the request with the form of its target, which the method limits.

    RFC 9112 section 3.2.
    """
    request = RequestHead(
        method=method.decode("ascii"),
        target=target.decode("ascii"),
        form=TargetForm.ORIGIN,
        minor=minor,
        fields=[],
    )
    if method == b"CONNECT":
        if not _AUTHORITY_FORM.fullmatch(target):
            raise BadMessage(400, "the target of CONNECT must be host:port")
        request.form = TargetForm.AUTHORITY
        request.authority = request.target
    elif target.startswith(b"/"):
        request.origin_target = request.target
    elif target == b"*":
        if method != b"OPTIONS":
            raise BadMessage(400, "only OPTIONS may have the target *")
        request.form = TargetForm.ASTERISK
        request.origin_target = "*"
    else:
        _read_absolute_form(request, target)
    return request


def _read_absolute_form(request: RequestHead, target: bytes) -> None:
    parts = _ABSOLUTE_FORM.fullmatch(target)
    if parts is None:
        raise BadMessage(400, "the request target is malformed")
    scheme, authority, path, query = (part.decode("ascii") for part in parts.groups())
    request.form = TargetForm.ABSOLUTE
    request.scheme = scheme.lower()
    request.authority = authority
    if path or query or request.method != "OPTIONS":
        request.origin_target = (path or "/") + query  # RFC 9112 section 3.2.1
    else:
        request.origin_target = "*"  # RFC 9112 section 3.2.4


def _interpret_request(request: RequestHead) -> None:
    """Set what the fields say about routing, framing and the connection."""
    values = framing_fields(request.fields)
    _set_host(request, values.get(b"host", []))
    _set_framing(request, values.get(b"content-length", []), values.get(b"transfer-encoding", []))
    _set_connection(request, values.get(b"connection", []), values.get(b"upgrade", []))
    if request.minor and b"expect" in values:  # RFC 9110 section 10.1.1: ignored in HTTP/1.0
        request.expects_continue = b"100-continue" in items_of(values[b"expect"])


def _set_host(request: RequestHead, hosts: list[bytes]) -> None:
    # RFC 9112 section 3.2: exactly one valid Host, or 400. HTTP/1.0 did not define the field.
    if len(hosts) > 1:
        raise BadMessage(400, "the request has several Host fields")
    if not hosts:
        if request.minor:
            raise BadMessage(400, "the request has no Host field")
    elif not HOST.fullmatch(hosts[0]):
        raise BadMessage(400, "the Host field is malformed")
    else:
        request.host = hosts[0]


def _set_framing(request: RequestHead, lengths: list[bytes], codings: list[bytes]) -> None:
    if lengths and codings:
        # RFC 9112 section 6.3 gives Transfer-Encoding priority, but not every server does: the
        # difference is how request smuggling works.
        raise BadMessage(400, "the request has both Content-Length and Transfer-Encoding")
    if len(lengths) > 1 or len(codings) > 1:
        # RFC 9110 section 8.6 allows equal values to be merged; two parsers may merge differently.
        raise BadMessage(400, "Content-Length or Transfer-Encoding is repeated")
    if lengths:
        request.length = length_of(lengths[0], 400)
    if codings:
        if not request.minor:
            # RFC 9112 section 6.1
            raise BadMessage(400, "Transfer-Encoding is not allowed in HTTP/1.0")
        if codings[0].lower() != b"chunked":
            raise BadMessage(501, "only the transfer coding chunked is supported here")
        request.chunked = True
    if request.form is TargetForm.AUTHORITY and (request.chunked or request.length):
        # RFC 9110 section 9.3.6: content in a CONNECT has no meaning, and some parsers do not skip
        # it.
        raise BadMessage(400, "a CONNECT request must not have content")


def _set_connection(request: RequestHead, connection: list[bytes], upgrade: list[bytes]) -> None:
    if connection:
        _set_options(request, connection)
    # RFC 9112 section 9.3
    request.keep_alive = b"close" not in request.options and (
        request.minor == 1 or b"keep-alive" in request.options
    )
    if upgrade:
        _set_upgrade(request, protocols_of(upgrade, 400))


def _set_options(request: RequestHead, connection: list[bytes]) -> None:
    request.options = options = frozenset(items_of(connection))
    if not all(map(OPTION.fullmatch, options)):
        raise BadMessage(400, "the Connection field is malformed")
    if options & _END_TO_END:
        raise BadMessage(400, "Connection lists an end-to-end field")


def _set_upgrade(request: RequestHead, protocols: tuple[str, ...]) -> None:
    if request.chunked or request.length:
        # RFC 9110 section 7.8: the content comes before the switch. Some parsers (httptools) read
        # it as the next request, and no real client sends any.
        raise BadMessage(400, "an upgrade request must not have content")
    if b"upgrade" not in request.options or not request.minor:
        return  # RFC 9110 section 7.8: Upgrade is ignored
    request.upgrade = protocols
    if "websocket" in protocols and request.method != "GET":
        # RFC 6455 section 4.1
        raise BadMessage(400, "the method of a WebSocket handshake must be GET")
