"""OpenSSL errors as the standard library raises them, in OpenSSL's own words; pure.

`tls_failures` and `client_tls` know these words again, and say what they mean.
"""

import re
import ssl
from typing import Final

VERIFY_FAILED: Final = "certificate verify failed: "
CLOSED: Final = "connection closed"
BROKEN_RECORD: Final = ssl.SSLError.__name__  # of `alert_words`, after the handshake
_EOF: Final = "unexpected eof while reading"

# The standard library writes such as: [SSL: NO_SHARED_CIPHER] no shared cipher (_ssl.c:1020)
_MESSAGE: Final = re.compile(r"(?:\[[^\]]*\] )?(.*?)(?: \(_ssl\.c:\d+\))?\Z", re.DOTALL).match
_ALERT: Final = re.compile(r"(?:\A|\s)alert (?:number \d+ )?(.+)").search
# X509_V_ERR_*: here the standard library makes sentences of its own.
_MISMATCHES: Final = {62: "hostname mismatch", 64: "IP address mismatch"}


def words_of(error: ssl.SSLError) -> str:
    """Return the reason of an error, such as "tlsv1 alert unknown ca"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        told = _MISMATCHES.get(error.verify_code, error.verify_message)
        return f"{VERIFY_FAILED}{told}"
    if isinstance(error, ssl.SSLZeroReturnError):
        return CLOSED
    if isinstance(error, ssl.SSLEOFError):
        return _EOF
    found = _MESSAGE(error.strerror or "")
    return found[1] if found is not None and found[1] else type(error).__name__


def alert_in(words: str) -> str | None:
    """Return the name of the alert that `words_of` an error tells of; None: it is no alert."""
    found = _ALERT(words)
    return None if found is None else found[1]


def alert_words(error: ssl.SSLError) -> str:
    """Return "alert NAME" for a received alert, else the name of the error's type."""
    alert = alert_in(words_of(error))
    return type(error).__name__ if alert is None else f"alert {alert}"
