"""The CA's certificate as it is published beside its key, read without cryptography.

Law kept: no quiet downgrade. What is not exactly as `certificate_authority` leaves it is not
returned, so that the caller has that look at it.
"""

from pathlib import Path

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ConfigError
from claude_proxy.trust.private_files import PUBLIC, SECRET, Folder

# mitmproxy's file names, so that scripts and instructions written for it keep working.
AUTHORITY_FILE = "mitmproxy-ca.pem"
AUTHORITY_P12_FILE = "mitmproxy-ca.p12"
CERTIFICATE_FILE = "mitmproxy-ca-cert.pem"
CERTIFICATE_CER_FILE = "mitmproxy-ca-cert.cer"
CERTIFICATE_P12_FILE = "mitmproxy-ca-cert.p12"
P12_FILES = (AUTHORITY_P12_FILE, CERTIFICATE_P12_FILE)

_BLOCK = lazy_pattern(rb"-----BEGIN CERTIFICATE-----\s+[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def published_certificate(confdir: Path) -> bytes | None:
    """Return the certificate of the CA in `confdir`; None unless all of its files agree.

    ConfigError if another user could have read or written the CA. Whether clients would accept it
    is not looked at.
    """
    folder = Folder.find(confdir)
    if folder is None:
        return None
    with folder:
        authority = folder.read(AUTHORITY_FILE, SECRET)
        try:
            shown = [folder.read(name, PUBLIC) for name in (CERTIFICATE_FILE, CERTIFICATE_CER_FILE)]
        except ConfigError:
            return None  # `certificate_authority` replaces it
        if len(folder.modes(P12_FILES)) < len(P12_FILES):
            return None
    if authority is None or shown[0] is None or shown[0] != shown[1]:
        return None
    blocks = [block.split() for block in _BLOCK.findall(authority)]
    return shown[0] if blocks == [shown[0].split()] else None
