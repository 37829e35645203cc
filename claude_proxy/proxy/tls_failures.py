"""TLS failures of upstreams: what OpenSSL reports, in plain words with a fix; pure.

The name that is not proved, an expired certificate, an unknown CA, a demand for a client
certificate and a version that is too old each have a text of their own. What is not known here is
named by OpenSSL's own words.
"""

from typing import Final

from claude_proxy.proxy.openssl_words import BROKEN_RECORD, CLOSED, VERIFY_FAILED, alert_in
from claude_proxy.proxy.upstream_errors import UpstreamError, closed
from claude_proxy.wire.authority import Authority

CERTIFICATE_INVALID: Final = "upstream-certificate-invalid"
TLS_FAILED: Final = "upstream-tls-failed"

_CLIENT_CERTIFICATE: Final = (
    "it demands a client certificate, and claude-proxy has none to present; with tls: passthrough "
    "in its rule, the client can present its own"
)
# As `proxy.upstream_hints` knows them again.
UNKNOWN_CA_WORDS: Final = "its certificate is signed by a CA that is not trusted"
_UNKNOWN_CA: Final = (
    f"{UNKNOWN_CA_WORDS}, or an intermediate certificate is "
    "missing; if the CA is your company's, name its certificate with --upstream-ca"
)
_UNKNOWN_NAME: Final = "it does not know the name {name}"
_CLOSED: Final = "it closed the connection during the handshake"
_BROKEN: Final = (
    "the TLS connection to {target} was closed without a response: the upstream, or something on "
    "the way, sent a record that is damaged or not TLS"
)
_TOO_OLD: Final = "it speaks only versions of TLS before 1.2, which are not secure"

# By the words of X509_verify_cert_error_string, in lower case. "{name}" is the name to be proved.
_INVALID: Final = {
    "certificate has expired": "its certificate has expired",
    "certificate is not yet valid or the system clock is incorrect": (
        "its certificate is not valid yet; if it should be, look at the clock of this machine"
    ),
    "self-signed certificate": (
        "its certificate is self-signed; if it is your own, name it with --upstream-ca"
    ),
    "self-signed certificate in certificate chain": _UNKNOWN_CA,
    "unable to get local issuer certificate": _UNKNOWN_CA,
    "unable to get issuer certificate": _UNKNOWN_CA,
    "unable to verify the first certificate": _UNKNOWN_CA,
    "hostname mismatch": "its certificate is not valid for the name {name}",
    "ip address mismatch": "its certificate is not valid for the address {name}",
    "certificate revoked": "its certificate is revoked",
    "ee certificate key too weak": "the key of its certificate is too weak",
    "ca certificate key too weak": "the key of its CA is too weak",
    "ca signature digest algorithm too weak": "its certificate is signed in a way that is not safe",
    "unsuitable certificate purpose": "its certificate is not for a server",
}

# Alerts by their names in RFC 8446 section 6, as OpenSSL spells them.
_ALERTS: Final = {
    "handshake failure": "it accepts none of the ciphers and parameters that were offered",
    "insufficient security": "it accepts none of the ciphers and parameters that were offered",
    "protocol version": _TOO_OLD,
    "unrecognized name": _UNKNOWN_NAME,
    "no application protocol": "it speaks none of the protocols that were offered",
    "access denied": "it refused the connection (access denied)",
    "internal error": "it reported an internal error",
    "certificate required": _CLIENT_CERTIFICATE,
}
# Of these, each is about a certificate of the client: ours was not sent, as there is none.
_ABOUT_CLIENT: Final = frozenset(
    {
        "bad certificate",
        "unsupported certificate",
        "certificate revoked",
        "certificate expired",
        "certificate unknown",
        "unknown ca",
    }
)
# Alerts that a server may send when a certificate that it asked for does not come.
_AFTER_REQUEST: Final = _ABOUT_CLIENT | {"handshake failure", "access denied"}

_OTHERS: Final = {
    "tlsv1 unrecognized name": _UNKNOWN_NAME,  # an alert, though OpenSSL does not say so
    "unsupported protocol": _TOO_OLD,
    "wrong ssl version": _TOO_OLD,
    "unexpected eof while reading": _CLOSED,
    CLOSED: _CLOSED,
    "dh key too small": "its key exchange is not secure (DH key too small)",
    "unsafe legacy renegotiation disabled": "it speaks TLS without secure renegotiation (RFC 5746)",
    "wrong version number": "it does not speak TLS there",
    "packet length too long": "it does not speak TLS there",
    "record layer failure": "it does not speak TLS there",
    "http request": "it does not speak TLS there",
}


def failed_handshake(error: str, target: Authority, *, asked: bool) -> UpstreamError:
    """Return the failure of a handshake with the upstream at `target`.

    `error` is in OpenSSL's words; `asked` says that a client certificate was asked for.
    """
    if error.startswith(VERIFY_FAILED):
        words = error.removeprefix(VERIFY_FAILED)
        told = _INVALID.get(words.lower(), f"its certificate is not valid ({words})")
        return UpstreamError(CERTIFICATE_INVALID, _sentence(told, target))
    return UpstreamError(TLS_FAILED, _sentence(_told(error, asked=asked), target))


def broken_off(error: str | None, target: Authority, otherwise: str = "") -> UpstreamError:
    """Return the failure of an upstream whose connection ended without a response.

    `error` is that of the connection: what `alert_words` told of a TLS error, the name of an
    exception, or None. `otherwise` is what to say where it is no alert.
    """
    alert = None if error is None else alert_in(error)
    if error == BROKEN_RECORD:
        return UpstreamError(TLS_FAILED, _BROKEN.format(target=target))
    if alert is None:
        return closed(otherwise) if otherwise else closed()
    # In TLS 1.3 the server rejects a client after the client's side of the handshake has ended.
    told = _told_of_alert(alert, asked=True)
    return UpstreamError(TLS_FAILED, _sentence(told, target))


def _told(error: str, *, asked: bool) -> str:
    if (alert := alert_in(error)) is not None:
        return _told_of_alert(alert, asked=asked)
    return _OTHERS.get(error, f"OpenSSL says: {error}")


def _told_of_alert(alert: str, *, asked: bool) -> str:
    if alert in _ABOUT_CLIENT or (asked and alert in _AFTER_REQUEST):
        return _CLIENT_CERTIFICATE
    return _ALERTS.get(alert, f"it broke off the handshake (TLS alert: {alert})")


def _sentence(told: str, target: Authority) -> str:
    return f"no TLS connection to {target}: {told.replace('{name}', target.host)}"
