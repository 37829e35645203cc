"""Certificates of the test's internet: ordinary ones by trustme, and each kind of bad one."""

import ssl
import tempfile
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)


class Pki:
    """A certificate authority whose root is the only one that the proxy is told to trust."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA(organization_name="Test Internet")
        self.root_file = directory / "internet-root.pem"
        self._ca.cert_pem.write_to_path(self.root_file)
        self._lock = threading.Lock()
        self._contexts: dict[tuple[str, tuple[str, ...]], ssl.SSLContext] = {}

    def context(self, host: str, protocols: Sequence[str] = ()) -> ssl.SSLContext:
        """Return the server side of TLS for `host`; the name says how good the certificate is."""
        key = (host, tuple(protocols))
        with self._lock:  # each connection of an origin asks on a thread of its own
            if key not in self._contexts:
                self._contexts[key] = self._server_context(host, protocols)
            return self._contexts[key]

    def files(self, host: str, directory: Path) -> tuple[Path, Path]:
        """Write a good certificate for `host` and its key; return where they are."""
        leaf = self._ca.issue_cert(host)
        certificate, key = directory / "certificate.pem", directory / "key.pem"
        leaf.cert_chain_pems[0].write_to_path(certificate)
        leaf.private_key_pem.write_to_path(key)
        return certificate, key

    def _server_context(self, host: str, protocols: Sequence[str]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        match host.partition(".")[0]:
            case "self-signed":
                key = ec.generate_private_key(ec.SECP256R1())
                _load(context, key, _certificate(host, key, issuer=_name(host), names=[host]))
            case "common-name-only":
                signer = serialization.load_pem_private_key(
                    self._ca.private_key_pem.bytes(), password=None
                )
                assert isinstance(signer, ec.EllipticCurvePrivateKey)
                root = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
                key = ec.generate_private_key(ec.SECP256R1())
                certificate = _certificate(host, key, issuer=root.subject, signer=signer)
                _load(context, key, certificate)
            case kind:
                self._issue(host, kind).configure_cert(context)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def _issue(self, host: str, kind: str) -> trustme.LeafCert:
        now = datetime.now(UTC)
        match kind:
            case "expired":
                return self._ca.issue_cert(host, not_before=now - 30 * _DAY, not_after=now - _DAY)
            case "future":
                return self._ca.issue_cert(host, not_before=now + _DAY, not_after=now + 30 * _DAY)
            case "wrong-name":
                return self._ca.issue_cert("elsewhere.test", common_name=host)
            case _:
                return self._ca.issue_cert(host)


def _certificate(
    host: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey | None = None,
    names: Sequence[str] = (),
) -> x509.Certificate:
    """Return a certificate that trustme would not issue: signed by itself, or without names."""
    start = datetime.now(UTC) - _DAY
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(host))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + 20 * _DAY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if names:
        alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternative, critical=False)
    return builder.sign(signer or key, hashes.SHA256())


def _load(
    context: ssl.SSLContext, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> None:
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        file.flush()
        context.load_cert_chain(file.name)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
