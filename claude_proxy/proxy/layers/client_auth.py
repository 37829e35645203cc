"""Client authentication: whether a client presents the credentials that the owner requires.

Law: secrets stay outside. What is compared is in no message, and a comparison takes the same time
however much of it is right.
"""

import binascii
import hmac
import re
from base64 import b64decode

from claude_proxy.config.settings import ClientCredentials
from claude_proxy.wire.http1.head import RequestHead
from claude_proxy.wire.socks5 import SocksLogin

# RFC 7235 2.1, RFC 7617 2: a scheme in any case, spaces, and one run of base64.
_BASIC = re.compile(rb"[Bb][Aa][Ss][Ii][Cc] +([A-Za-z0-9+/]+={0,2})").fullmatch


def head_admits(required: ClientCredentials, head: RequestHead) -> bool:
    """Tell whether a request's Proxy-Authorization is right; two such fields never are."""
    values = head.get_all(b"proxy-authorization")
    basic = _BASIC(values[0]) if len(values) == 1 else None
    if basic is None:
        return False
    try:
        presented = b64decode(basic[1], validate=True)
    except binascii.Error:
        return False
    return hmac.compare_digest(presented, f"{required.user}:{required.password}".encode())


def login_admits(required: ClientCredentials, login: SocksLogin) -> bool:
    """Tell whether a SOCKS5 login is right."""
    # Always compare both, so that the time does not tell which of the two was wrong.
    user = hmac.compare_digest(login.user, required.user.encode())
    password = hmac.compare_digest(login.password, required.password.encode())
    return user and password
