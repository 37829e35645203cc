"""Upstream errors, and the 502 or 504 for each: one mapping for HTTP/1.1 and HTTP/2; pure.

The reasons are stable: they are in the response and in the audit log.
"""

from dataclasses import dataclass, replace
from http import HTTPStatus

from claude_proxy.policy.request import Request
from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.responses import (
    Refusal,
    attempt_of,
    denial_of,
    no_room,
    sentence,
    status_of_denial,
    unreachable,
)
from claude_proxy.proxy.upstream_proxy import refused


@dataclass(frozen=True, slots=True)
class UpstreamError:
    """Why an upstream that was reached gave no response that can be forwarded."""

    reason: str
    text: str
    timed_out: bool = False


CUT_SHORT = UpstreamError("upstream-cut-short", "the upstream broke off its response")
TIMED_OUT = UpstreamError(
    "upstream-timeout", "the upstream did not respond in time", timed_out=True
)


def closed(text: str = "the upstream closed the connection without a response") -> UpstreamError:
    """Return the error of an upstream that closed, or reset the stream, without a response."""
    return UpstreamError("upstream-closed", text)


def bad_response(text: str) -> UpstreamError:
    """Return the error of a response that is not valid HTTP, or does not fit the request."""
    return UpstreamError("upstream-bad-answer", text)


def cut_off(reason: str) -> UpstreamError:
    """Return the error of a response that an inspector aborted."""
    text = "the response contains a secret, or cannot be inspected"
    return UpstreamError(reason, text)


def proxy_refused(challenges: list[bytes], *, offered: bool) -> UpstreamError:
    """Return the error of an upstream proxy that answers plain HTTP with a 407.

    `challenges` and `offered` are those of `upstream_proxy.refused`.
    """
    told = refused(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, challenges, offered=offered)
    text = f"the upstream proxy refused the request with {told}"
    return UpstreamError(Failure.PROXY.value, text)


def refusal_for(error: DialError | UpstreamError | str, request: Request, label: str) -> Refusal:
    """Return the response for an upstream's error; a plain `str` is a TLS handshake's error.

    `label` is the request in one line, safe to print.
    """
    if isinstance(error, str):
        error = UpstreamError("upstream-tls-failed", error)
    if isinstance(error, UpstreamError):
        timed_out = error.timed_out
        return unreachable(error.reason, sentence(error.text), label, timed_out=timed_out)
    if error.decision is not None:
        denied = attempt_of(error.decision.reason.value, request)
        found = replace(denied, address=error.address, is_own=error.is_own_address)
        return denial_of(found, label, status=status_of_denial(request))
    if error.failure is Failure.NO_ROOM:
        return no_room(label, sentence(error.text))
    timed_out = error.failure is Failure.TIMEOUT
    return unreachable(error.failure.value, sentence(error.text), label, timed_out=timed_out)
