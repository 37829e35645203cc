"""Is the smallest allowlist for stock mitmdump: one host, at CONNECT and at each request."""

from mitmproxy import http

ALLOWED = {"api.bench.test"}


def http_connect(flow: http.HTTPFlow) -> None:
    """Refuse a tunnel to another host."""
    _judge(flow, flow.request.host)


def request(flow: http.HTTPFlow) -> None:
    """Refuse a request for another host."""
    _judge(flow, flow.request.pretty_host)


def _judge(flow: http.HTTPFlow, host: str) -> None:
    if host.lower().rstrip(".") not in ALLOWED:
        flow.response = http.Response.make(403, b"not on the allowlist\n")
