"""Lets HTTP/2 bodies stream, counts them, and records how each stream ended.

Whether a stream may pass was settled in its layer (`layers.http2`); by the time of these hooks
nothing but a request's trailers can be held back, because bodies leave as they come.
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
        """Pass the request's body on as it comes."""
        flow.request.stream = _counting(flow, "bytes_up")

    def request(self, flow: http.HTTPFlow) -> None:
        """Drop of the trailers what belongs in the head, where it would have been judged."""
        if flow.request.trailers:
            trailers = without(flow.request.trailers, _NOT_IN_TRAILERS)
            # Upstreams that speak HTTP/1.1 get none: the body's framing may have no room for them.
            flow.request.trailers = trailers if flow.server_conn.alpn == b"h2" else None

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Pass the answer's body on as it comes, and no word of other ways to the origin."""
        answer, passage = flow.response, _passage_of(flow)
        if answer is None:
            return
        answer.headers.pop("alt-svc", None)
        answer.stream = _counting(flow, "bytes_down")
        if passage is not None:
            self._gate.answered(passage, answer.status_code)

    def response(self, flow: http.HTTPFlow) -> None:
        """Record an exchange that is complete."""
        if (passage := _passage_of(flow)) is not None:
            self._gate.end(passage)

    def error(self, flow: http.HTTPFlow) -> None:
        """Record an exchange that broke off."""
        if (passage := _passage_of(flow)) is not None:
            self._gate.end(passage, "stream-broken-off")


def _passage_of(flow: http.HTTPFlow) -> Attempt | None:
    passage = flow.metadata.get(ATTEMPT)
    return passage if isinstance(passage, Attempt) else None


def _counting(flow: http.HTTPFlow, counter: str) -> Callable[[bytes], bytes]:
    def count(data: bytes) -> bytes:
        if (passage := _passage_of(flow)) is not None:
            setattr(passage, counter, getattr(passage, counter) + len(data))
        return data

    return count
