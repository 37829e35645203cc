"""What an HTTP/1.1 client and its origin say in tests, and how a response is read."""

import re
from collections.abc import Callable

from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import Stage

ALLOWLIST = """
allow:
  - {host: example.com, scheme: http}
  - {host: other.example, scheme: http}
  - {host: read.example, scheme: http, methods: [GET, HEAD]}
  - {host: part.example, scheme: http, paths: [/ok]}
"""


GET = b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n"


OTHER = b"GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n"


DENIED = b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


EXAMPLE = Authority.of("example.com", 80)


type PlayForward = Callable[..., Stage]


def post(body: bytes, *fields: bytes, path: bytes = b"/") -> bytes:
    """Return a POST; without a field of its own its body has a length."""
    lines = fields or (b"Content-Length: %d" % len(body),)
    head = [b"POST http://example.com%b HTTP/1.1" % path, b"Host: example.com", *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def statuses(answers: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def reason_of(answer: bytes) -> str:
    found = re.search(rb"X-Claude-Proxy-Reason: ([a-z0-9-]+)\r\n", answer)
    return found[1].decode() if found else ""


def closes(answer: bytes) -> bool:
    return b"\r\nConnection: close\r\n" in answer


LAST_CHUNK = b"0\r\n\r\n"
