"""HTTP/2 header sections: into requests and responses, and back, with HTTP/1.1's rules.

Agreement: what would be refused of an HTTP/1.1 message is refused here, so that a message cannot
change its meaning on the way from one protocol to the other. BadMessage concerns one stream.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from h2.errors import ErrorCodes
from hpack import NeverIndexedHeaderTuple

from claude_proxy.policy.request import RawField, Request, Scheme
from claude_proxy.policy.rules import OVERRIDE_HEADERS
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.body import NOT_IN_TRAILERS
from claude_proxy.wire.http1.emit import end_to_end_fields
from claude_proxy.wire.http1.head import (
    HOST,
    MAX_FIELDS,
    BadMessage,
    RequestHead,
    ResponseHead,
    TargetForm,
)
from claude_proxy.wire.http1.response import is_bodiless

_METHOD: Final = re.compile(rb"[A-Z][A-Z0-9_-]{0,31}").fullmatch
# What the HTTP/1.1 reader takes as a target, less absolute-form: see `wire.http1.request`.
_PATH: Final = re.compile(rb"(?:/[\x21\x22\x24-\x7e]*|\*)").fullmatch
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+").fullmatch
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_STATUS: Final = re.compile(rb"[1-9][0-9]{2}").fullmatch
_LENGTH: Final = re.compile(rb"[0-9]{1,19}").fullmatch
_BLANK: Final = b" \t"

_REQUEST_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path"})
# RFC 9113 section 8.2.2: of a connection, and HTTP/2 has no such fields.
_OF_CONNECTION: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_PROXY_FIELDS: Final = frozenset({b"proxy-authorization", b"proxy-connection"})
# RFC 7838: a client that follows it would try to get past the proxy by another host or by QUIC.
_NOT_FOR_CLIENT: Final = frozenset({b"alt-svc"})
# CGI and its successors read "content_length" as "content-length".
_FRAMING_ALIASES: Final = frozenset({b"content_length", b"transfer_encoding"})
_NOT_IN_TRAILERS: Final = NOT_IN_TRAILERS | OVERRIDE_HEADERS | _OF_CONNECTION
# RFC 9110 8.6: without content these say so, because some servers wait for it otherwise.
_WITH_CONTENT: Final = frozenset({"POST", "PUT", "PATCH"})


@dataclass(slots=True, repr=False)
class Http2Request:
    """A request's header section, valid by itself; no repr shows a field."""

    method: str
    path: str  # and the query, as sent
    authority: bytes  # as sent, in :authority or in Host
    host: Authority
    fields: list[RawField]  # without pseudo-headers and Host
    length: int | None  # the Content-Length

    def get(self, name: bytes) -> bytes | None:
        """Return the value of the first field `name`."""
        return next((value for known, value in self.fields if known == name), None)

    def judged(self, target: Authority) -> Request:
        """Return the request as the policy judges it."""
        path, _, query = self.path.partition("?")
        fields = ((b"host", self.authority), *self.fields)
        return Request(Scheme.HTTPS, target, self.host, self.method, path, query, fields)


# --- requests


def shown_pseudo(raw: Iterable[RawField], name: bytes) -> str:
    """Return a pseudo-header as it was sent, for the record of a request that cannot be read."""
    # Not as UTF-8: invalid bytes would become surrogates, which cannot be encoded again.
    return next((value.decode("latin-1") for known, value in raw if known == name), "")


def read_request(raw: Sequence[RawField], *, limit: int, end: bool) -> Http2Request:
    """Read a request's header section; BadMessage (400, 431): it must not be forwarded.

    `limit`: bytes that it may have; `end`: no body follows.
    """
    if sum(len(name) + len(value) for name, value in raw) > limit:
        raise BadMessage(431, "the request head is too large")
    pseudo, fields = _split(raw, _REQUEST_PSEUDO, 400)
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if not _METHOD(method):
        raise BadMessage(400, "the method is malformed")
    if method == b"CONNECT":
        raise BadMessage(400, "there is a tunnel already, so CONNECT is not served")
    if pseudo.get(b":scheme") != b"https":
        raise BadMessage(400, "the scheme is not https")
    if not _PATH(path) or (path == b"*" and method != b"OPTIONS"):
        raise BadMessage(400, "the path is malformed")
    authority, host = _authority_of(pseudo.get(b":authority"), fields)
    if any(name == b"te" and value.lower() != b"trailers" for name, value in fields):
        raise BadMessage(400, "the TE field is not allowed in HTTP/2")
    return Http2Request(
        method=method.decode("ascii"),
        path=path.decode("ascii"),
        authority=authority,
        host=host,
        fields=[(name, value) for name, value in fields if name != b"host"],
        length=_request_length(fields, end=end),
    )


def _split(
    raw: Iterable[RawField], known: frozenset[bytes], status: int
) -> tuple[dict[bytes, bytes], list[RawField]]:
    """Return the pseudo-headers and the other fields, both checked."""
    pseudo: dict[bytes, bytes] = {}
    fields: list[RawField] = []
    for name, value in raw:
        if name[:1] != b":":
            fields.append((_checked_name(name, status), _checked_value(value, status)))
        elif fields or name in pseudo or name not in known:
            raise BadMessage(status, "a pseudo-header field is unknown, repeated or misplaced")
        else:
            pseudo[name] = value
    # HTTP/2 may send each cookie in a field of its own (RFC 9113 8.2.3).
    if sum(name != b"cookie" for name, _ in fields) > MAX_FIELDS:
        raise BadMessage(431 if status == 400 else status, "there are too many fields")  # noqa: PLR2004
    return pseudo, fields


def _checked_name(name: bytes, status: int) -> bytes:
    if not _NAME(name):
        # Servers are not always careful; of a client it could be meant to be read in two ways.
        name = name if status == 400 else name.lower()  # noqa: PLR2004
        if not _NAME(name):
            raise BadMessage(status, "a field name is malformed")
    if name in _OF_CONNECTION:
        raise BadMessage(status, f"the field {name.decode()} is not allowed in HTTP/2")
    return name


def _checked_value(value: bytes, status: int) -> bytes:
    if _CONTROL(value):
        raise BadMessage(status, "there is a control byte in a field")
    # RFC 9113 8.2.1 has none; real servers send some, which HTTP/1.1 takes off (RFC 9112 5.1).
    return value.strip(_BLANK)


def _authority_of(pseudo: bytes | None, fields: Sequence[RawField]) -> tuple[bytes, Authority]:
    """Return the one authority that is named; RFC 9113 8.3.1: Host must not contradict it."""
    named = [value for name, value in fields if name == b"host"]
    spelled = [text for text in (pseudo, *named) if text]
    hosts = {_host_of(text) for text in spelled}
    host = hosts.pop() if len(hosts) == 1 and len(named) <= 1 else None
    if host is None:
        raise BadMessage(400, "the authority of the request cannot be read")
    return spelled[0], host


def _host_of(spelled: bytes) -> Authority | None:
    if not HOST.fullmatch(spelled):
        return None
    try:
        return Authority.parse(spelled.decode("ascii"), default_port=443)
    except ValueError:
        return None


def _request_length(fields: Sequence[RawField], *, end: bool) -> int | None:
    lengths = [value for name, value in fields if name == b"content-length"]
    if not lengths:
        return None
    if len(lengths) > 1:
        raise BadMessage(400, "Content-Length or Transfer-Encoding is repeated")
    if not _LENGTH(lengths[0]):
        raise BadMessage(400, "the Content-Length field is malformed")
    length = int(lengths[0])
    if end and length:
        raise BadMessage(400, "the body is shorter than its length says")
    return length


def without(fields: Iterable[RawField], dropped: frozenset[bytes]) -> list[RawField]:
    """Return the fields without those in `dropped`, for a proxy, or read as framing by some."""
    dropped |= _PROXY_FIELDS
    return [
        (name, value)
        for name, value in fields
        if name not in _FRAMING_ALIASES and name.replace(b"_", b"-") not in dropped
    ]


def for_http2_origin(
    request: Http2Request, drop: frozenset[bytes], extra: Iterable[RawField]
) -> list[RawField]:
    """Return the header section for an origin of HTTP/2; `extra` may hold a credential."""
    return [
        (b":method", request.method.encode("ascii")),
        (b":scheme", b"https"),
        (b":authority", request.authority),
        (b":path", request.path.encode("ascii")),
        *without(request.fields, drop),
        # RFC 7541 section 7.1.3: a secret stays out of every compression table.
        *(NeverIndexedHeaderTuple(name.lower(), value) for name, value in extra),
    ]


def for_http1_origin(
    request: Http2Request, drop: frozenset[bytes], extra: Iterable[RawField], *, body: bool
) -> RequestHead:
    """Return the request as one of HTTP/1.1, with our own framing."""
    fields: list[RawField] = []
    cookies: list[bytes] = []
    for name, value in without(request.fields, drop):
        if name == b"cookie":
            cookies.append(value)
        elif name != b"content-length":
            fields.append((name, value))
    if cookies:
        # RFC 9113 8.2.3: HTTP/2 may send a cookie's pairs apart, HTTP/1.1 must not.
        fields.append((b"cookie", b"; ".join(cookies)))
    fields += [(name.lower(), value) for name, value in extra]
    length = request.length
    if length is None and not body and request.method in _WITH_CONTENT:
        length = 0
    return RequestHead(
        method=request.method,
        target=request.path,
        form=TargetForm.ORIGIN,
        minor=1,
        fields=fields,
        host=request.authority,
        length=length,
        chunked=length is None and body,
    )


def read_trailers(raw: Iterable[RawField], status: int) -> list[RawField]:
    """Read a trailer section; fields that are only allowed in a head are left out."""
    _, fields = _split(raw, frozenset(), status)
    return for_trailers(fields)


def for_trailers(fields: Iterable[RawField]) -> list[RawField]:
    """Return trailers as HTTP/2 has them, without fields that are only allowed in a head."""
    lowered = [(name.lower(), value) for name, value in fields]
    return [
        (name, value) for name, value in lowered if name.replace(b"_", b"-") not in _NOT_IN_TRAILERS
    ]


# --- responses


def read_response(raw: Sequence[RawField], *, method: str) -> ResponseHead:
    """Read the header section of an origin's response; BadMessage (502): it is malformed."""
    pseudo, fields = _split(raw, frozenset({b":status"}), 502)
    status = pseudo.get(b":status", b"")
    if not _STATUS(status):
        raise BadMessage(502, "the status is malformed")
    head = ResponseHead(status=int(status), minor=1, fields=fields)
    if head.status == 101:  # noqa: PLR2004 - RFC 9113 section 8.6
        raise BadMessage(502, "the upstream switched to what was not asked for")
    _set_length(head)
    if is_bodiless(head.status, method) and method != "HEAD" and head.status != 304:  # noqa: PLR2004
        head.length = None
    return head


def _set_length(head: ResponseHead) -> None:
    """Set the length, and leave one field of it in the head."""
    fields = [value for name, value in head.fields if name == b"content-length"]
    if not fields:
        return
    # RFC 9110 section 8.6: equal values, in one field or in several, may be replaced by one.
    values = {value.strip(_BLANK) for each in fields for value in each.split(b",")}
    if len(values) > 1:
        raise BadMessage(502, "the response has different Content-Length values")
    value = values.pop()
    if not _LENGTH(value):
        raise BadMessage(502, "the Content-Length field is malformed")
    head.length = int(value)
    if len(fields) > 1:
        head.fields = [field for field in head.fields if field[0] != b"content-length"]
        head.fields.append((b"content-length", value))


def for_client(head: ResponseHead) -> list[RawField]:
    """Return a response's header section for a client."""
    fields = ((name.lower(), value) for name, value in end_to_end_fields(head))
    status = (b":status", b"%d" % head.status)
    return [status, *(field for field in fields if field[0] not in _NOT_FOR_CLIENT)]


def reset_text(code: int) -> str:
    """Return the name of an error code, for people."""
    return ErrorCodes(code).name if code in set(ErrorCodes) else str(code)
