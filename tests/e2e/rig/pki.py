"""Issues the certificates of the test's internet, good ones and each kind of bad one."""

import ssl
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = timedelta(days=1)


class Pki:
    """A certificate authority whose root is the only one that the proxy is told to trust."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self._root_name = _name("Test Internet Root")
        self.root_file = directory / "internet-root.pem"
        root = self._certificate(self._root_name, [], self._root_key, authority=True)
        self.root_file.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        self._lock = threading.Lock()
        self._contexts: dict[tuple[str, tuple[str, ...]], ssl.SSLContext] = {}

    def context(self, host: str, protocols: Sequence[str] = ()) -> ssl.SSLContext:
        """Return the server side of TLS for `host`; the name says how good the certificate is."""
        key = (host, tuple(protocols))
        with self._lock:  # each connection of an origin asks on a thread of its own
            if key not in self._contexts:
                self._contexts[key] = self._server_context(host, protocols)
            return self._contexts[key]

    def _server_context(self, host: str, protocols: Sequence[str]) -> ssl.SSLContext:
        certificate = self._leaf(host)
        file = self._directory / f"{host.replace('*', '_')}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + self._key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def _leaf(self, host: str) -> x509.Certificate:
        names = [host]
        match host.partition(".")[0]:
            case "self-signed":
                self_name = _name(host)
                return self._certificate(self_name, names, self._key, issuer=self_name)
            case "expired":
                return self._certificate(_name(host), names, self._root_key, age_days=30)
            case "future":
                return self._certificate(_name(host), names, self._root_key, age_days=-30)
            case "wrong-name":
                return self._certificate(_name(host), ["elsewhere.test"], self._root_key)
            case "common-name-only":
                return self._certificate(_name(host), [], self._root_key)
            case _:
                return self._certificate(_name(host), names, self._root_key)

    def _certificate(
        self,
        subject: x509.Name,
        names: Sequence[str],
        signer: ec.EllipticCurvePrivateKey,
        *,
        issuer: x509.Name | None = None,
        age_days: int = 0,
        authority: bool = False,
    ) -> x509.Certificate:
        start = datetime.now(UTC) - _DAY - age_days * _DAY
        public = signer.public_key() if authority else self._key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or self._root_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + 20 * _DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        if authority:
            usage = _key_usage(signs_certificates=True)
        else:
            usage = _key_usage(signs_certificates=False)
            purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
            signer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
            builder = builder.add_extension(purpose, critical=False)
            builder = builder.add_extension(signer_id, critical=False)
        builder = builder.add_extension(usage, critical=True)
        if names:
            alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(alternative, critical=False)
        return builder.sign(signer, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
