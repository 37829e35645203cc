"""X.509 certificates and their keys: the CA and its leaves, made and read without files or a clock.

Keeps "secrets stay outside" as far as a certificate can: the CA signs for TLS servers only, no CA
below it is valid, and no leaf carries its key.
"""

import re
from dataclasses import field
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError

# mitmproxy and mkcert use ten years. A CA forgotten in a trust store is a risk for as long as it is
# valid, and a new one takes two commands (`ca rotate`, then what `ca trust` prints): three years.
AUTHORITY_LIFE = timedelta(days=3 * 365)
# Leaves are signed on demand and renewed automatically, so a short life replaces revocation.
LEAF_LIFE = timedelta(days=7)
# Virtual machines resume with clocks that are hours behind.
BACKDATED = timedelta(days=1)

_LONGEST_COMMON_NAME = 64  # RFC 5280, appendix A.1: ub-common-name
_LONGEST_HOSTNAME = 32  # leaves room for the rest of the CA's common name
_SMALLEST_RSA_BITS = 2048
_ROTATE = "make a new one: claude-proxy ca rotate"

_SERVER_AUTH = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
_SERVER_PURPOSES = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}

# NIST's names, which the rest of the world uses.
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

type AuthorityKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Pair:
    """The CA: its certificate and its private key."""

    certificate: x509.Certificate
    key: AuthorityKey = field(repr=False)

    def certificate_pem(self) -> bytes:
        """Return the certificate, which clients may see."""
        return self.certificate.public_bytes(Encoding.PEM)

    def secret_pem(self) -> bytes:
        """Return key and certificate, the content of the CA file."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key + self.certificate_pem()

    def certificate_p12(self) -> bytes:
        """Return the certificate without its key as PKCS #12, for Windows and macOS."""
        return pkcs12.serialize_key_and_certificates(
            b"claude-proxy", None, self.certificate, None, NoEncryption()
        )

    def secret_p12(self) -> bytes:
        """Return key and certificate as PKCS #12, without a password as mitmproxy does."""
        return pkcs12.serialize_key_and_certificates(
            b"claude-proxy", self.key, self.certificate, None, NoEncryption()
        )


def make_authority(now: datetime, hostname: str, constraints: x509.NameConstraints | None) -> Pair:
    """Make a new CA, valid from now; its name contains `hostname` and the date."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _authority_name(now, hostname)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(for_authority=True), critical=True)
        # RFC 5280 does not require it in a CA, but verifiers treat it as a limit: with it a stolen
        # key cannot sign mail, code or client certificates.
        .add_extension(_SERVER_AUTH, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def read_authority(data: bytes, where: str, now: datetime) -> Pair:
    """Read a CA made here, by mitmproxy or by its owner; refuse one that no client would trust."""

    def refuse(what: str, fix: str = _ROTATE) -> ConfigError:
        return ConfigError(what, where=where, fix=fix)

    try:
        key = load_pem_private_key(data, password=None)
        certificates = x509.load_pem_x509_certificates(data)
    except TypeError as error:
        raise refuse(
            "the CA key is encrypted", "decrypt it with `openssl pkey`, or " + _ROTATE
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise refuse("the CA file has no private key and certificate in PEM format") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise refuse("the CA key is neither EC nor RSA")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _SMALLEST_RSA_BITS:
        raise refuse(f"the CA key has {key.key_size} bits; less than {_SMALLEST_RSA_BITS} is weak")
    if len(certificates) != 1:
        raise refuse("the CA file has more than one certificate; it must contain only the root")
    certificate = certificates[0]
    if certificate.public_key() != key.public_key():
        raise refuse("the CA certificate and the CA key do not belong together")
    if problem := _unfit(certificate, now):
        raise refuse(problem)
    return Pair(certificate, key)


class LeafMaker:
    """Signs leaf certificates; everything that all leaves share is prepared once."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        # Leaves have their own key, created here and never written to disk: an attacker who reads
        # it from memory can use it for seven days on one machine, and does not have the CA key.
        self.key = ec.generate_private_key(ec.SECP256R1())
        self._usage = _key_usage(for_authority=False)
        self._issuer = _authority_key_identifier(pair)

    def make(self, host: str, now: datetime) -> x509.Certificate:
        """Sign for `host`, a normalised name or IP literal; ValueError for anything else."""
        ca = self._pair.certificate
        name, subject = _names_of(host)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            # A leaf that outlives its issuer, or is older, is refused by some verifiers.
            .not_valid_before(max(now - BACKDATED, ca.not_valid_before_utc))
            .not_valid_after(min(now + LEAF_LIFE, ca.not_valid_after_utc))
            # RFC 5280, 4.2.1.6: with an empty subject the alternative name is critical.
            .add_extension(x509.SubjectAlternativeName([name]), critical=not list(subject))
            .add_extension(_SERVER_AUTH, critical=False)
            .add_extension(self._usage, critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(self._issuer, critical=False)
        )
        return builder.sign(self._pair.key, hashes.SHA256())


def out_of_date(certificate: x509.Certificate, now: datetime) -> str | None:
    """Return why a client would consider the CA certificate invalid now; None if it is valid."""
    if now >= certificate.not_valid_after_utc:
        return f"the CA certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if now < certificate.not_valid_before_utc:
        start = certificate.not_valid_before_utc
        return (
            f"the CA certificate is valid from {start:%Y-%m-%d}, but the clock says {now:%Y-%m-%d}"
        )
    return None


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Return the SHA-256 fingerprint as browsers and `openssl` print it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def key_type_of(pair: Pair) -> str:
    """Return the key type and size, such as "EC P-256"."""
    if isinstance(pair.key, rsa.RSAPrivateKey):
        return f"RSA {pair.key.key_size}"
    return f"EC {_CURVES.get(pair.key.curve.name, pair.key.curve.name)}"


def _authority_name(now: datetime, hostname: str) -> x509.Name:
    # The date distinguishes an old CA from the new one in a keychain that shows both.
    machine = re.sub(r"[^A-Za-z0-9.-]", "", hostname)[:_LONGEST_HOSTNAME] or "localhost"
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"claude-proxy CA {machine} {now:%Y-%m-%d}"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "claude-proxy"),
        ]
    )


def _names_of(host: str) -> tuple[x509.GeneralName, x509.Name]:
    if not host or "*" in host:
        # "*.example.com" would be a wildcard: a leaf is for one host.
        raise ValueError(f"not a host: {host!r}")
    try:
        address = ip_address(host)
    except ValueError:
        name = x509.DNSName(host)
    else:
        # No common name: OpenSSL would check it against the DNS constraints of the CA.
        return x509.IPAddress(address), x509.Name([])
    if len(host) > _LONGEST_COMMON_NAME:
        return name, x509.Name([])
    return name, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])


def _key_usage(*, for_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not for_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=for_authority,
        crl_sign=for_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_identifier(pair: Pair) -> x509.AuthorityKeyIdentifier:
    # RFC 5280, 4.2.1.1: equal to the issuer's own identifier, however that was computed.
    try:
        issuer = pair.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(pair.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer.value)


def _unfit(certificate: x509.Certificate, now: datetime) -> str | None:
    """Return why a client would not accept `certificate` as a CA for TLS servers."""
    if not _may_sign(certificate):
        return "the CA certificate may not sign certificates of TLS servers"
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        return "the CA certificate is not signed by its own key"
    return out_of_date(certificate, now)


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        extensions = certificate.extensions
        if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
    except (ValueError, x509.ExtensionNotFound):
        return False
    for extension in extensions:
        match extension.value:
            case x509.KeyUsage() as usage if not usage.key_cert_sign:
                return False
            case x509.ExtendedKeyUsage() as usages if not _SERVER_PURPOSES & set(usages):
                return False
    return True
