"""The system's root certificates, and the bundle that adds the proxy's CA to them.

A bundle replaces what a client trusts, so without the system's roots every host that is passed
through would fail. SSL_CERT_FILE is ignored: it may name an old bundle of this program, or be set
by the project that runs in the sandbox.
"""

import re
import ssl
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives.serialization import NoEncryption, pkcs12

# Where distributions keep them; the first file that contains a certificate is used. Not on macOS,
# where they are in a keychain and /etc/ssl/cert.pem is an outdated copy.
SYSTEM_FILES = tuple(
    Path(name)
    for name in (
        "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine, NixOS
        "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # the same, where that link is gone
        "/etc/ssl/ca-bundle.pem",  # openSUSE
        "/etc/ssl/cert.pem",  # Alpine, the BSDs
        ssl.get_default_verify_paths().openssl_cafile,  # compiled in; no variable changes it
    )
    if sys.platform != "darwin"
)
_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----\s+[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
)


def system_roots(candidates: Iterable[Path] = SYSTEM_FILES) -> Path:
    """Return the file with the system's roots, or certifi's if the system has none."""
    for path in candidates:
        if _certificates(path):
            return path
    return Path(certifi.where())


def bundle_of(own: bytes, roots: Path) -> bytes:
    """Return the certificates in `roots` and `own`, each once, as PEM."""
    certificates = {b"".join(block.split()): block for block in _certificates(roots)}
    certificates[b"".join(own.split())] = own.strip()
    head = f"# The roots of {roots} and the CA of claude-proxy, which keeps this file up to date.\n"
    return head.encode() + b"\n".join(certificates.values()) + b"\n"


def java_truststore_of(bundle: bytes) -> bytes:
    """Return the certificates of a bundle as a PKCS #12 trust store for Java."""
    trusted = []
    for block in _CERTIFICATE.findall(bundle):
        with warnings.catch_warnings(action="ignore"):
            try:
                certificate = x509.load_pem_x509_certificate(block)
            except ValueError:
                # Systems trust a few old roots that break today's rules (a serial number of 0).
                continue
        trusted.append(pkcs12.PKCS12Certificate(certificate, None))
    return pkcs12.serialize_java_truststore(trusted, NoEncryption())


def _certificates(path: Path) -> list[bytes]:
    try:
        return _CERTIFICATE.findall(path.read_bytes())
    except OSError:
        return []
