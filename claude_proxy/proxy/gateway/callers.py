"""Callers of a gateway: whether one shows the token, and whether it is a web page.

Any page that a browser shows may send requests to this machine and, by a name of its own that it
has re-resolved (DNS rebinding), read the responses. Such a request has an Origin (RFC 6454 7),
says that a site made it (Fetch Metadata), or asks for that name.
"""

import hmac
import re

from claude_proxy.proxy.layers.session import NO_ADDRESS
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.head import RequestHead

_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([^ ]+) *").fullmatch
_NO_SITE = b"none"
_LOCAL_NAMES = frozenset({"localhost", "ip6-localhost"})


def shows_token(head: RequestHead, token: bytes) -> bool:
    """Tell whether the caller shows the token; in the same time for any token."""
    bearers = [_BEARER(value) for value in head.get_all(b"authorization")]
    shown = [bearer[1] for bearer in bearers if bearer is not None]
    shown += head.get_all(b"x-api-key")
    return any([hmac.compare_digest(one, token) for one in shown])  # noqa: C419 - all


def is_web_page(head: RequestHead, peer: tuple[object, ...]) -> bool:
    """Tell whether a page in a browser may have made the request that came from `peer`."""
    if head.get(b"origin") is not None or head.get(b"sec-fetch-site") not in {None, _NO_SITE}:
        return True
    # A Unix socket is out of a browser's reach, so a program there may name any host.
    return peer[:1] != NO_ADDRESS[:1] and not _is_local(head.host)


def _is_local(host: bytes | None) -> bool:
    """Tell whether a Host is an address or a name of this machine: no page has such a name."""
    if host is None:
        return True  # HTTP/1.0, which no browser speaks
    try:
        asked = Authority.parse(host, default_port=80)
    except ValueError:
        return False
    return asked.address is not None or asked.host in _LOCAL_NAMES
