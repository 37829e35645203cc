"""The hash by which OpenSSL finds a root in a directory."""

import datetime as dt
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.subject_hash import subject_hash
from tests.conftest import FindProgram

# Of those that cryptography can write and OpenSSL reads in a common name.
NO_TEXTS = {_ASN1Type.OctetString, _ASN1Type.UTCTime, _ASN1Type.GeneralizedTime}
TEXTS = sorted({*_ASN1Type} - NO_TEXTS - {_ASN1Type.VisibleString}, key=lambda kind: kind.name)


def openssl_hash(openssl: str, pem: bytes) -> str:
    words = [openssl, "x509", "-noout", "-subject_hash"]
    return subprocess.run(words, input=pem, capture_output=True, check=True).stdout.decode().strip()


def certificate_of(subject: x509.Name) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another")]),
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=1 << 130,
        not_valid_before=day,
        not_valid_after=day + dt.timedelta(days=1),
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_it_is_the_one_that_openssl_looks_for(confdir: Path, program: FindProgram) -> None:
    pem = CertificateAuthority.load_or_create(confdir).certificate_path.read_bytes()

    assert subject_hash(pem) == openssl_hash(program("openssl"), pem)


@pytest.mark.parametrize("kind", TEXTS, ids=lambda kind: kind.name)
def test_every_type_of_text_counts_in_one_form(kind: _ASN1Type, program: FindProgram) -> None:
    oid, text = NameOID.COMMON_NAME, "  An  Agent's   ROOT "
    if kind is _ASN1Type.BitString:
        oid, text = NameOID.X500_UNIQUE_IDENTIFIER, b"\x00An  Agent"  # type: ignore[assignment]
    pem = certificate_of(x509.Name([x509.NameAttribute(oid, text, kind)]))

    assert subject_hash(pem) == openssl_hash(program("openssl"), pem)


def test_several_names_count_in_their_order(program: FindProgram) -> None:
    several = x509.RelativeDistinguishedName(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Zürich " + "x" * 50),
            x509.NameAttribute(NameOID.COMMON_NAME, "B"),
        ]
    )
    one = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COUNTRY_NAME, "CH")])
    pem = certificate_of(x509.Name([one, several]))

    assert subject_hash(pem) == openssl_hash(program("openssl"), pem)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    ],
)
def test_what_is_no_certificate_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="not"):
        subject_hash(text)
