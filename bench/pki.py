"""Makes the certificates of a run: an origin's, and a CA for a proxy that does not make its own."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

type Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_DAY = timedelta(days=1)
_RSA_EXPONENT = 65537
_RSA_BITS = 2048


def make_origin(directory: Path, names: list[str]) -> None:
    """Write `origin-ca.pem`, `origin.pem` and `origin.key`: P-256, as most of the web has it."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("bench origin CA")
    _write(directory / "origin-ca.pem", _certificate(ca_name, ca_key, ca_name, ca_key, []))
    _write(directory / "origin.pem", _certificate(_name(names[0]), key, ca_name, ca_key, names))
    _write_key(directory / "origin.key", key)


def make_rsa_ca(directory: Path, stem: str) -> None:
    """Write a CA of RSA-2048, certificate and key in files of their own."""
    key = rsa.generate_private_key(_RSA_EXPONENT, _RSA_BITS)
    _write_ca(directory, stem, key)


def make_p256_ca(directory: Path, stem: str) -> None:
    """Write a CA of P-256, certificate and key in files of their own."""
    _write_ca(directory, stem, ec.generate_private_key(ec.SECP256R1()))


def _write_ca(directory: Path, stem: str, key: Key) -> None:
    name = _name(f"bench {stem}")
    _write(directory / f"{stem}.pem", _certificate(name, key, name, key, []))
    _write_key(directory / f"{stem}.key", key)


def _certificate(
    subject: x509.Name, key: Key, issuer: x509.Name, signer: Key, names: list[str]
) -> x509.Certificate:
    """Issue a CA's certificate, or a server's if it has names."""
    now, is_ca = datetime.now(UTC), not names
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 30 * _DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
    )
    if is_ca:
        usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    else:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(purpose, critical=False)
        builder = builder.add_extension(alternative, critical=False)
    return builder.sign(signer, hashes.SHA256())


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_key(path: Path, key: Key) -> None:
    # Throw-away, and read by servers that may have given up their rights: no mode is set.
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
