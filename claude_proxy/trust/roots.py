"""The system's root certificates, and the bundle that adds the proxy's CA to them.

A bundle replaces what a client trusts, so without the system's roots every host that is passed
through would fail. SSL_CERT_FILE is ignored: it may name an old bundle of this program, or be set
by the project that runs in the sandbox.
"""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern

if TYPE_CHECKING:
    from cryptography import x509

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
    )
    if sys.platform != "darwin"
)
# Where the packages of distributions keep the public CAs, those too that certifi has dropped.
PUBLIC_DIRECTORIES = (
    Path("/usr/share/ca-certificates"),  # Debian, Ubuntu
    Path("/usr/share/pki/ca-trust-source"),  # Fedora, RHEL
    Path("/usr/share/pki/trust"),  # openSUSE
    Path("/usr/share/ca-certificates/trust-source"),  # Arch
)
# Where administrators put the CAs that they add.
ADDED_DIRECTORIES = (
    Path("/usr/local/share/ca-certificates"),
    Path("/etc/pki/ca-trust/source/anchors"),
    Path("/etc/pki/trust/anchors"),
    Path("/etc/ca-certificates/trust-source/anchors"),
)
_OWN_NAME = "claude-proxy"  # in the subject of every CA of this program
_CERTIFICATE = lazy_pattern(
    rb"-----BEGIN CERTIFICATE-----\s+[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
)


def system_roots(candidates: Iterable[Path] | None = None) -> Path:
    """Return the file with the system's roots, or certifi's if the system has none."""
    for path in _places() if candidates is None else candidates:
        if _CERTIFICATE.search(_content(path)):
            return path
    return _of_certifi()


def _of_certifi() -> Path:
    import certifi  # noqa: PLC0415 - it takes long, and most systems have roots

    return Path(certifi.where())


def _places() -> Iterator[Path]:
    yield from SYSTEM_FILES
    if sys.platform != "darwin":
        import ssl  # noqa: PLC0415 - it takes long, and most systems have one of the others

        # Compiled in; no variable changes it.
        yield Path(ssl.get_default_verify_paths().openssl_cafile)


@dataclass(frozen=True, slots=True)
class AddedRoot:
    """A CA that somebody has added to the system's roots."""

    name: str
    file: Path | None  # where it was added, if that is known

    def __str__(self) -> str:
        return self.name if self.file is None else f"{self.name} ({self.file})"


@cache
def added_roots() -> tuple[AddedRoot, ...]:
    """Return the CAs that were added to this machine: not certifi's, the system's or our own.

    Upstreams are verified by certifi's roots, and a company adds the CA of a proxy that opens TLS
    to the system's.
    """
    system = system_roots()
    public = [_of_certifi(), *_files_in(PUBLIC_DIRECTORIES)]
    return roots_beside(system, public, _files_in(ADDED_DIRECTORIES))


def roots_beside(
    system: Path, public: Iterable[Path], added: Iterable[Path]
) -> tuple[AddedRoot, ...]:
    """Return the CAs in the file `system` that no file of `public` has; those `added` by file."""
    from cryptography import x509  # noqa: PLC0415 - every run of a sandbox imports this module

    known = {_packed(block) for path in public for block in _certificates(path)}
    files = {_packed(block): path for path in added for block in _certificates(path)}
    found = []
    for block in _certificates(system):
        if _packed(block) in known:
            continue
        with warnings.catch_warnings(action="ignore"), suppress(ValueError):
            subject = x509.load_pem_x509_certificate(block).subject
            if _OWN_NAME not in subject.rfc4514_string():
                found.append(AddedRoot(_name_of(subject), files.get(_packed(block))))
    return tuple(found)


def _name_of(subject: "x509.Name") -> str:
    from cryptography.x509.oid import NameOID  # noqa: PLC0415 - as above

    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else subject.rfc4514_string()


def _packed(block: bytes) -> bytes:
    return b"".join(block.split())


def _files_in(directories: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for directory in directories:
        with suppress(OSError):
            found += sorted(path for path in directory.rglob("*") if path.is_file())
    return found


def bundle_of(own: bytes, roots: Path) -> bytes:
    """Return the certificates in `roots` and `own`, each once, as PEM."""
    certificates = {b"".join(block.split()): block for block in _certificates(roots)}
    certificates[b"".join(own.split())] = own.strip()
    head = f"# The roots of {roots} and the CA of claude-proxy, which keeps this file up to date.\n"
    return head.encode() + b"\n".join(certificates.values()) + b"\n"


def java_truststore_of(bundle: bytes) -> bytes:
    """Return the certificates of a bundle as a PKCS #12 trust store for Java."""
    from cryptography import x509  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - as above
        NoEncryption,
        pkcs12,
    )

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
    return _CERTIFICATE.findall(_content(path))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
