"""Modes of a gateway: what each changes in a request, a response, and an error.

Claude mode passes on what Claude Code sends and what the provider answers. Strict mode takes one
call, read whole, and lets nothing of the provider's wording through.
"""

from typing import Protocol

from claude_proxy.config.settings import Gateway, GatewayMode
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import RawField
from claude_proxy.proxy.gateway import responses, strict
from claude_proxy.proxy.gateway.buffered_writer import BufferedWriter
from claude_proxy.proxy.gateway.responses import GatewayResponse, reason_field
from claude_proxy.proxy.gateway.routes import NotServed
from claude_proxy.proxy.layers.admission import Admission
from claude_proxy.proxy.layers.http1_response_writer import ResponseWriter, StreamingWriter
from claude_proxy.proxy.responses import Refusal
from claude_proxy.wire.http1.head import RequestHead

_NOT_SERVED = "This gateway serves no such path."
_OTHER_METHOD = "This path is not served by this method."
_BAD_REQUEST = 400
_TOO_LARGE = 413
_INVALID = 422
_TOO_MANY = 429
_FAULT = 500
_NOT_REACHED = frozenset({502, 504})
# What strict mode keeps of a caller's fields; its one call asks for nothing else.
_STRICT_KEPT = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"expect",
        b"anthropic-version",
        b"anthropic-beta",
    }
)
# A 403 for a fault, or for a body's size, would say that the owner forbids it.
_STATUS_OF = {
    Reason.INTERNAL_ERROR.value: _FAULT,
    Reason.BODY_TOO_LARGE.value: _TOO_LARGE,
}


class InvalidBody(ValueError):  # noqa: N818 - it is the request that is invalid, not the program
    """A body that the mode does not take, and what the caller gets."""

    def __init__(self, response: GatewayResponse) -> None:
        super().__init__(f"status {response.status}")
        self.response = response


class Mode(Protocol):
    """Where the modes of a gateway differ."""

    def rewrite(self, head: RequestHead) -> None:
        """Change a head's fields and target into those for the upstream."""

    def read_body(self, body: bytes) -> bytes:
        """Return the body to judge; InvalidBody: the mode does not take it."""

    def writer(self, head: RequestHead, admission: Admission) -> ResponseWriter:
        """Return what writes the upstream's response."""

    def not_served(self, missed: NotServed) -> GatewayResponse:
        """Return the response to a request for what is not served."""

    def response_for(self, refusal: Refusal) -> GatewayResponse:
        """Return the response for a refusal."""

    def error(self, status: int, text: str, *fields: RawField) -> GatewayResponse:
        """Return an error of the gateway's own."""


class ClaudeMode:
    """Passes requests and responses on as they are, for Claude Code."""

    def rewrite(self, head: RequestHead) -> None:
        """Change nothing."""

    def read_body(self, body: bytes) -> bytes:
        """Return the body as it came."""
        return body

    def writer(self, head: RequestHead, admission: Admission) -> ResponseWriter:  # noqa: ARG002
        """Return a writer that streams."""
        return StreamingWriter(head.minor)

    def not_served(self, missed: NotServed) -> GatewayResponse:
        """Say it as the Messages API says its errors."""
        text = _OTHER_METHOD if missed.methods else _NOT_SERVED
        reason = reason_field(Reason.ENDPOINT_NOT_ALLOWED.value)
        return self.error(missed.status, text, *_allow(missed), reason)

    def response_for(self, refusal: Refusal) -> GatewayResponse:
        """Say it as the Messages API says its errors, with the reason in a field."""
        return _response_for(self, refusal)

    def error(self, status: int, text: str, *fields: RawField) -> GatewayResponse:
        """Return an error that says that it is this gateway's."""
        if _BAD_REQUEST <= status < _FAULT and status != _TOO_MANY:
            # Anthropic's clients retry a 401 for minutes, but heed this field; nothing that is
            # refused here comes to be allowed by waiting.
            fields = (*fields, (b"x-should-retry", b"false"))
        return responses.api_error(status, f"claude-proxy: {text}", *fields)


class StrictMode:
    """Takes one call, read whole, and returns nothing of the provider's wording."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def rewrite(self, head: RequestHead) -> None:
        """Drop the query, and every field that the one call does not need."""
        head.origin_target = head.path
        head.fields = [field for field in head.fields if field[0].lower() in _STRICT_KEPT]
        head.fields += [(b"Content-Type", b"application/json"), (b"Accept", b"application/json")]

    def read_body(self, body: bytes) -> bytes:
        """Return the body as it was read; InvalidBody names each field that is wrong."""
        try:
            return strict.read(body).written()
        except strict.Invalid as invalid:
            raise InvalidBody(responses.detail(_INVALID, invalid.shown())) from None

    def writer(self, head: RequestHead, admission: Admission) -> ResponseWriter:  # noqa: ARG002
        """Return a writer that keeps the response until it is whole."""
        gateway = self._gateway
        return BufferedWriter(
            admission, limit=gateway.answer_bytes, keeps_retry_after=gateway.keeps_retry_after
        )

    def not_served(self, missed: NotServed) -> GatewayResponse:
        """Say it without a reason."""
        text = "Method not allowed" if missed.methods else "Not found"
        return responses.detail(missed.status, text, *_allow(missed))

    def response_for(self, refusal: Refusal) -> GatewayResponse:
        """Say nothing about how the upstream failed: that is for the audit log alone."""
        if refusal.status in _NOT_REACHED:
            return responses.failed()
        if refusal.reason == Reason.INTERNAL_ERROR.value:
            return responses.fault()
        return _response_for(self, refusal)

    def error(self, status: int, text: str, *fields: RawField) -> GatewayResponse:
        """Return an error in the words of strict mode."""
        return responses.strict_error(status, text, *fields)


def mode_of(gateway: Gateway) -> Mode:
    """Return the gateway's mode."""
    return StrictMode(gateway) if gateway.mode is GatewayMode.STRICT else ClaudeMode()


def _response_for(mode: Mode, refusal: Refusal) -> GatewayResponse:
    status = _STATUS_OF.get(refusal.reason, refusal.status)
    return mode.error(status, refusal.explanation, reason_field(refusal.reason))


def _allow(missed: NotServed) -> tuple[RawField, ...]:
    # RFC 9110 15.5.6
    return ((b"Allow", ", ".join(missed.methods).encode("ascii")),) if missed.methods else ()
