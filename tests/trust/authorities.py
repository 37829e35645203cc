"""Shared by the tests of this directory."""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from claude_proxy.trust.certificate_authority import CertificateAuthority

PUBLIC_FILES = ("mitmproxy-ca-cert.pem", "mitmproxy-ca-cert.cer", "mitmproxy-ca-cert.p12")


NOW = datetime(2030, 5, 17, 12, 0, tzinfo=UTC)


DAY = timedelta(days=1)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def files_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def extension[T: x509.ExtensionType](certificate: x509.Certificate, kind: type[T]) -> T:
    return certificate.extensions.get_extension_for_class(kind).value


def authority_file(
    *,
    key: Any = None,
    signer: Any = None,
    issuer: str = "root",
    start: datetime = NOW - DAY,
    end: datetime = NOW + DAY,
    extensions: tuple[x509.ExtensionType, ...] = (x509.BasicConstraints(True, None),),
    subject: tuple[x509.NameAttribute[str], ...] = (
        x509.NameAttribute(NameOID.COMMON_NAME, "root"),
    ),
) -> bytes:
    """Return a CA file in which everything may be wrong."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer = signer or key
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = builder.sign(signer, algorithm)
    return pem_of(key) + certificate.public_bytes(Encoding.PEM)


def pem_of(key: Any, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    assert isinstance(text, bytes)
    return text


def place(confdir: Path, data: bytes) -> Path:
    confdir.mkdir(parents=True, exist_ok=True)
    path = confdir / "mitmproxy-ca.pem"
    path.write_bytes(data)
    path.chmod(0o600)
    return path


# What clients say


def contexts(
    authority: CertificateAuthority, host: str, directory: Path
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a client that trusts the CA, strictly, and a server that shows a leaf for `host`."""
    leaf = authority.leaf(host)
    file = directory / "leaf.pem"
    file.write_bytes(pem_of(leaf.key) + leaf.certificate.public_bytes(Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    client = ssl.create_default_context(cafile=str(authority.certificate_path))
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    return client, server


def handshake(authority: CertificateAuthority, host: str) -> str:
    """Shake hands in memory, as a client of `host`, and return the TLS version."""
    client_context, server_context = contexts(authority, host, authority.confdir)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client.version() or "no TLS"


LONG = "a" * 63 + ".example.com"
