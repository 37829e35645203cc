"""HTTP/2 stream hooks: stream and count bodies, and record the outcome of each stream.

Each stream was already judged in its layer (`layers.http2`). Bodies are forwarded as they arrive,
so these hooks can hold back only a request's trailers.
"""

from collections.abc import Callable

from mitmproxy import http

from claude_proxy.policy.rules import OVERRIDE_HEADERS
from claude_proxy.proxy.gate import Attempt, Gate
from claude_proxy.proxy.layers.http2 import ATTEMPT, without
from claude_proxy.wire.http1.body import NOT_IN_TRAILERS

_NOT_IN_TRAILERS = NOT_IN_TRAILERS | OVERRIDE_HEADERS


class Http2StreamHooks:
    """The hooks of one HTTP/2 exchange."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Forward the request's body as it arrives."""
        flow.request.stream = _counting(flow, "bytes_up")

    def request(self, flow: http.HTTPFlow) -> None:
        """Drop trailers that are only allowed in the head, where they would have been judged."""
        if flow.request.trailers:
            trailers = without(flow.request.trailers, _NOT_IN_TRAILERS)
            # An HTTP/1.1 upstream gets none: a body with Content-Length cannot have trailers.
            flow.request.trailers = trailers if flow.server_conn.alpn == b"h2" else None

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Forward the response's body as it arrives; drop Alt-Svc, which names other routes."""
        response, attempt = flow.response, _attempt_of(flow)
        if response is None:
            return
        response.headers.pop("alt-svc", None)
        response.stream = _counting(flow, "bytes_down")
        if attempt is not None:
            self._gate.answered(attempt, response.status_code)

    def response(self, flow: http.HTTPFlow) -> None:
        """Record an exchange that is complete."""
        if (attempt := _attempt_of(flow)) is not None:
            self._gate.end(attempt)

    def error(self, flow: http.HTTPFlow) -> None:
        """Record an exchange that was aborted."""
        if (attempt := _attempt_of(flow)) is not None:
            self._gate.end(attempt, "stream-broken-off")


def _attempt_of(flow: http.HTTPFlow) -> Attempt | None:
    attempt = flow.metadata.get(ATTEMPT)
    return attempt if isinstance(attempt, Attempt) else None


def _counting(flow: http.HTTPFlow, counter: str) -> Callable[[bytes], bytes]:
    def count(data: bytes) -> bytes:
        if (attempt := _attempt_of(flow)) is not None:
            setattr(attempt, counter, getattr(attempt, counter) + len(data))
        return data

    return count
