"""TLS failures of clients: a client that does not trust the CA, told by how it breaks off; pure.

It is the commonest trouble of all, and the client's own message rarely says what to do. OpenSSL and
BoringSSL send an alert. GnuTLS and Node.js finish the handshake or not, and close the connection
without a byte, which a client that changes its mind does as well, so that is said with less
certainty.
"""

from dataclasses import dataclass
from typing import Final

from claude_proxy.proxy.openssl_words import CLOSED

REJECTED: Final = "client-rejected-certificate"
LEFT: Final = "client-left-after-certificate"
FAILED: Final = "client-tls-failed"

# A client that opens a connection in advance keeps it for longer than this before it gives it up.
PROMPT_S: Final = 3.0

_FIX: Final = (
    "`claude-proxy env` prints what clients need, and `claude-proxy doctor --trust` tests it"
)
# RFC 8446, section 6.2, as OpenSSL spells them.
_OF_TRUST: Final = {
    "unknown ca": "unknown CA",
    "bad certificate": "bad certificate",
    "certificate unknown": "certificate unknown",
}
_ALERTS: Final = (
    *_OF_TRUST,
    "certificate expired",
    "certificate revoked",
    "unsupported certificate",
)


@dataclass(frozen=True, slots=True)
class ClientTlsFailure:
    """How a client's TLS failed."""

    code: str  # a stable word, for the audit log
    said: str  # what the client did, after its name; "{host}" is the target

    def sentence(self, client: str, host: str) -> str:
        """Return what happened, and what to do about it."""
        return f"{client} {self.said.format(host=host)}; {_FIX}"


def failure_in_handshake(error: str, *, is_prompt: bool) -> ClientTlsFailure | None:
    """Return the failure for OpenSSL's words of a handshake's error; None: the client gave up."""
    if error == CLOSED:
        return failure_without_request(None, is_prompt=is_prompt)
    alert = next((alert for alert in _ALERTS if alert in error), None)
    if alert is not None:
        return _rejected(alert)
    return ClientTlsFailure(FAILED, f"cannot speak TLS with the proxy for {{host}} ({error})")


def failure_without_request(error: str | None, *, is_prompt: bool) -> ClientTlsFailure | None:
    """Return the failure of a client that left after the handshake without a byte; None: it may.

    `error` is that of its connection, which contains the name of an alert if there was one.
    """
    alert = next((alert for alert in _ALERTS if alert in (error or "")), None)
    if alert is not None:
        return _rejected(alert)
    if not is_prompt:
        return None
    return ClientTlsFailure(
        LEFT,
        "closed the connection to {host} right after the proxy's certificate, so it probably does"
        " not trust the CA",
    )


def _rejected(alert: str) -> ClientTlsFailure:
    if alert in _OF_TRUST:
        said = f"broke off TLS to {{host}}: it does not trust the CA ({_OF_TRUST[alert]})"
    else:
        said = f"broke off TLS to {{host}}: it rejects the proxy's certificate ({alert})"
    return ClientTlsFailure(REJECTED, said)
