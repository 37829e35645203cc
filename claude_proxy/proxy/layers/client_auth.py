"""Client authentication: checks the credentials that the owner requires of clients.

Law kept: secrets stay outside. No message contains what is compared, and comparisons take constant
time.
"""

import binascii
import hashlib
import hmac
import re
from base64 import b64decode

from claude_proxy.config.settings import ClientCredentials
from claude_proxy.wire.http1.head import RequestHead
from claude_proxy.wire.socks5 import SocksLogin

# RFC 9110, section 11.4, and RFC 7617, section 2: "Basic" in any case, spaces, and base64.
_BASIC = re.compile(rb"[Bb][Aa][Ss][Ii][Cc] +([A-Za-z0-9+/]+={0,2})").fullmatch


def head_admits(required: ClientCredentials, head: RequestHead) -> bool:
    """Tell whether a request's Proxy-Authorization is valid; two such fields never are."""
    values = head.get_all(b"proxy-authorization")
    basic = _BASIC(values[0]) if len(values) == 1 else None
    if basic is None:
        return False
    try:
        presented = b64decode(basic[1], validate=True)
    except binascii.Error:
        return False
    return hmac.compare_digest(presented, f"{required.user}:{required.password}".encode())


def proof_of(credentials: ClientCredentials) -> str:
    """Return what a relay presents instead of the password, so that this is on no wire.

    It is the SHA-256 of USER:PASSWORD; it opens the proxy as the password does.
    """
    return hashlib.sha256(f"{credentials.user}:{credentials.password}".encode()).hexdigest()


def proof_admits(required: ClientCredentials, presented: str) -> bool:
    """Tell whether a relay has proved that its user has the password."""
    return hmac.compare_digest(presented.encode(), proof_of(required).encode())


def login_admits(required: ClientCredentials, login: SocksLogin) -> bool:
    """Tell whether a SOCKS5 login (RFC 1929) is valid."""
    # Always compare both, so that the time does not reveal which of the two was wrong.
    user = hmac.compare_digest(login.user, required.user.encode())
    password = hmac.compare_digest(login.password, required.password.encode())
    return user and password
