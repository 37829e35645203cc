"""Responses of a gateway: errors in the API's shape, and the provider's as strict mode words them.

Secrets stay outside, here the provider's: only the status of an error is used, so nothing of its
wording, ids or limits can come through. The content of a success that is JSON is passed on as it
came. Pure.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from claude_proxy.policy.request import RawField
from claude_proxy.proxy.responses import REASON_FIELD

_JSON: RawField = (b"Content-Type", b"application/json")
_PROXY_ERROR = "proxy_error"
_UPSTREAM_ERROR = "upstream_error"
FAILED = "Upstream request failed"
NOT_JSON = "Non-JSON response from provider"
UNEXPECTED = "Unexpected provider response"

_NORMALISED = {
    400: (
        "invalid_request",
        "The request was malformed or missing required parameters",
    ),
    401: ("authentication_error", "Authentication failed"),
    403: ("permission_denied", "Access to the requested resource is forbidden"),
    404: ("not_found", "The requested resource was not found"),
    429: ("rate_limited", "Rate limit exceeded"),
    500: (_UPSTREAM_ERROR, "The provider encountered an internal error"),
    502: (_UPSTREAM_ERROR, "The provider is temporarily unavailable"),
    503: (_UPSTREAM_ERROR, "The provider is temporarily unavailable"),
    529: (_UPSTREAM_ERROR, "The provider is temporarily overloaded"),
}
_OTHER_CLIENT_ERROR = ("client_error", "The request could not be processed")
_OTHER_SERVER_ERROR = (_UPSTREAM_ERROR, "The provider encountered an error")

# How the Messages API names each of its errors; clients read the status and this name.
_API_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
}
_OTHER_API_TYPE = "api_error"
_PHRASES = {529: b"Overloaded"}
# RFC 9110 10.2.3; a date in its place could carry more than a duration.
_SECONDS = re.compile(rb"[0-9]{1,9}").fullmatch


@dataclass(frozen=True, slots=True)
class GatewayResponse:
    """A whole response of the gateway's own, before it is put into bytes."""

    status: int
    content: bytes = field(repr=False)
    fields: tuple[RawField, ...] = (_JSON,)

    @property
    def phrase(self) -> bytes:
        """The reason phrase of the status line, which is never the upstream's."""
        if (known := _PHRASES.get(self.status)) is not None:
            return known
        try:
            return HTTPStatus(self.status).phrase.encode("ascii")
        except ValueError:
            return b"Status"

    def http1(self, *, accept: bytes | None = None, head_only: bool = False, close: bool) -> bytes:  # noqa: ARG002
        """Return the response in bytes; it is JSON whatever `accept` says."""
        lines = [
            b"HTTP/1.1 %d %b" % (self.status, self.phrase),
            *(b": ".join(one) for one in self.fields),
            b"Content-Length: %d" % len(self.content),
            b"Cache-Control: no-store",
            b"Connection: close" if close else b"Connection: keep-alive",
        ]
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        return head if head_only else head + self.content


def reason_field(reason: str) -> RawField:
    """Return the field that names the reason of an error."""
    return (REASON_FIELD.encode("ascii"), reason.encode("ascii"))


def json_response(status: int, value: object, *more: RawField) -> GatewayResponse:
    """Return a response whose content is `value` as JSON."""
    return GatewayResponse(
        status, json.dumps(value, separators=(",", ":")).encode("ascii"), (_JSON, *more)
    )


def error(status: int, kind: str, message: str, *more: RawField) -> GatewayResponse:
    """Return an error in the API's shape."""
    value = {"type": "error", "error": {"type": kind, "message": message}}
    return json_response(status, value, *more)


def api_error(status: int, message: str, *more: RawField) -> GatewayResponse:
    """Return an error of the gateway's own, as the Messages API would return it."""
    return error(status, _API_TYPES.get(status, _OTHER_API_TYPE), message, *more)


def strict_error(status: int, message: str, *more: RawField) -> GatewayResponse:
    """Return an error of the gateway's own in the words of strict mode."""
    return error(status, _words_for(status)[0], message, *more)


def detail(status: int, what: object, *more: RawField) -> GatewayResponse:
    """Return strict mode's response to a request that it does not take."""
    return json_response(status, {"detail": what}, *more)


def failed() -> GatewayResponse:
    """Return strict mode's response where the upstream gave none."""
    return error(502, _PROXY_ERROR, FAILED)


def fault() -> GatewayResponse:
    """Return strict mode's response to an internal error."""
    return detail(500, "Internal server error")


def normalised(
    status: int, fields: Sequence[RawField], content: bytes, *, keeps_retry_after: bool = False
) -> GatewayResponse:
    """Return the upstream's response as strict mode passes it on."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        if _is_json(fields, content):
            return GatewayResponse(status, content)
        return error(502, _PROXY_ERROR, NOT_JSON)
    if not HTTPStatus.BAD_REQUEST <= status <= 599:  # noqa: PLR2004 - RFC 9110 15: there are no more
        return error(502, _UPSTREAM_ERROR, UNEXPECTED)
    kind, message = _words_for(status)
    return error(status, kind, message, *(_retry_after(fields) if keeps_retry_after else ()))


def _words_for(status: int) -> tuple[str, str]:
    server = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return _NORMALISED.get(status, _OTHER_SERVER_ERROR if server else _OTHER_CLIENT_ERROR)


def _is_json(fields: Sequence[RawField], content: bytes) -> bool:
    # Compressed content is not decoded: the request asked for none.
    codings = [value for name, value in fields if name.lower() == b"content-encoding"]
    if any(coding.strip().lower() != b"identity" for coding in codings):
        return False
    try:
        json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return False
    return True


def _retry_after(fields: Sequence[RawField]) -> tuple[RawField, ...]:
    values = [value for name, value in fields if name.lower() == b"retry-after"]
    plain = len(values) == 1 and _SECONDS(values[0])
    return ((b"Retry-After", values[0]),) if plain else ()
