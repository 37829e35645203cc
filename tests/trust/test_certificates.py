"""Certificates: what the CA and its leaves are valid for, and for how long."""

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.certificates import make_authority
from tests.trust.authorities import (
    DAY,
    LONG,
    NOW,
    Clock,
    authority_file,
    extension,
    files_in,
    handshake,
    place,
)

# What the CA may do


def test_the_ca_signs_for_tls_servers_and_nothing_else(confdir: Path) -> None:
    certificate = CertificateAuthority.load_or_create(confdir).certificate

    basic = extension(certificate, x509.BasicConstraints)
    usage = extension(certificate, x509.KeyUsage)
    assert (basic.ca, basic.path_length) == (True, 0)
    assert usage.key_cert_sign
    assert usage.crl_sign
    assert not usage.digital_signature
    assert list(extension(certificate, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.SERVER_AUTH]
    critical = {each.oid for each in certificate.extensions if each.critical}
    assert critical == {x509.BasicConstraints.oid, x509.KeyUsage.oid}


def test_the_ca_has_a_p256_key_and_three_years(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)

    facts = authority.describe()

    assert facts.key_type == "EC P-256"
    assert facts.not_after == authority.not_after
    assert facts.not_after - facts.not_before == timedelta(days=3 * 365 + 1)
    assert facts.permitted == facts.excluded == ()


def test_two_cas_share_no_serial_number_and_no_key() -> None:
    one, two = (make_authority(NOW, "host", None) for _ in range(2))

    assert one.certificate.serial_number != two.certificate.serial_number
    assert one.key.public_key() != two.key.public_key()


@given(hostname=st.text())
def test_every_hostname_makes_a_name_that_can_be_recognised(hostname: str) -> None:
    pair = make_authority(NOW, hostname, None)

    name = pair.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    assert str(name).startswith("claude-proxy CA ")
    assert str(name).endswith(" 2030-05-17")


def test_nothing_of_the_key_is_in_a_repr(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)

    shown = repr([authority, authority._pair, authority.leaf("example.com")])

    assert "key" not in shown.lower()


# Leaves


def test_a_leaf_is_for_one_server_and_a_week(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir, clock=Clock())

    leaf = authority.leaf("api.example.com").certificate

    assert list(extension(leaf, x509.SubjectAlternativeName)) == [x509.DNSName("api.example.com")]
    assert leaf.subject.rfc4514_string() == "CN=api.example.com"
    assert list(extension(leaf, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert extension(leaf, x509.KeyUsage).digital_signature
    assert not extension(leaf, x509.KeyUsage).key_cert_sign
    assert not extension(leaf, x509.BasicConstraints).ca
    assert leaf.not_valid_before_utc == NOW - DAY
    assert leaf.not_valid_after_utc == NOW + timedelta(days=7)
    issuer = extension(authority.certificate, x509.SubjectKeyIdentifier)
    assert extension(leaf, x509.AuthorityKeyIdentifier).key_identifier == issuer.digest


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_an_address_is_named_as_an_address(confdir: Path, host: str) -> None:
    leaf = CertificateAuthority.load_or_create(confdir).leaf(host).certificate

    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [x509.IPAddress(ip_address(host))]
    assert names.critical
    assert not list(leaf.subject)


def test_a_name_too_long_for_a_subject_is_in_the_alternative_name_alone(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)

    fits, long = (authority.leaf("a" * size + ".example.com") for size in (52, 53))

    assert len(list(fits.certificate.subject)) == 1
    assert not list(long.certificate.subject)
    names = long.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical


@pytest.mark.parametrize("host", ["", "*.example.com", "bücher.example"])
def test_a_text_that_is_not_one_host_gets_no_leaf(confdir: Path, host: str) -> None:
    authority = CertificateAuthority.load_or_create(confdir)

    with pytest.raises(ValueError, match=r"not a host|ASCII|A-label"):
        authority.leaf(host)


def test_leaves_have_one_key_that_is_neither_the_cas_nor_on_disk(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)
    authority.write_bundle()

    one, two = authority.leaf("one.example.com"), authority.leaf("two.example.com")

    assert one.key is two.key
    assert one.certificate.public_key() == one.key.public_key()
    assert one.key.public_key() != authority.certificate.public_key()
    number = one.key.private_numbers().private_value.to_bytes(32)
    assert not any(number in data for data in files_in(confdir).values())


def test_no_leaf_outlives_the_ca_or_is_older(confdir: Path) -> None:
    place(confdir, authority_file(start=NOW - DAY / 2, end=NOW + DAY))
    clock = Clock()
    authority = CertificateAuthority.load_or_create(confdir, clock=clock)

    first = authority.leaf("example.com")

    assert first.certificate.not_valid_before_utc == NOW - DAY / 2
    assert first.certificate.not_valid_after_utc == NOW + DAY
    assert authority.leaf("example.com") is first
    clock.now = NOW + DAY / 2
    assert authority.leaf("example.com").renew_at == NOW + DAY * 3 / 4


@pytest.mark.parametrize("host", ["api.example.com", LONG, "192.0.2.7", "2001:db8::7"])
def test_a_strict_client_accepts_a_leaf(confdir: Path, host: str) -> None:
    authority = CertificateAuthority.load_or_create(confdir)

    assert handshake(authority, host) == "TLSv1.3"
