"""Roots: the bundle of the system's roots and the CA, and the trust store for Java."""

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    pkcs12,
)

from claude_proxy.trust import roots
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.certificates import make_authority
from tests.trust.authorities import NOW, mode_of

# The bundle


def test_the_bundle_is_the_systems_roots_and_the_ca_each_once(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)

    path = authority.write_bundle()

    certificates = roots._CERTIFICATE.findall(path.read_bytes())
    system = roots._CERTIFICATE.findall(roots.system_roots().read_bytes())
    assert path == confdir / "ca-bundle.pem"
    assert len(certificates) == len({b"".join(each.split()) for each in system}) + 1
    assert certificates[-1] == authority.certificate.public_bytes(Encoding.PEM).strip()
    assert ssl.create_default_context(cafile=str(path)).cert_store_stats()["x509_ca"] > 1


def test_ssl_cert_file_is_ignored(
    confdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "planted.pem"
    planted.write_bytes(make_authority(NOW, "evil", None).certificate_pem())
    monkeypatch.setenv("SSL_CERT_FILE", str(planted))

    pem = CertificateAuthority.load_or_create(confdir).bundle_pem()

    assert planted.read_bytes().strip() not in pem


def test_without_a_system_store_certifis_roots_are_used(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()

    found = roots.system_roots([tmp_path / "missing.pem", empty])

    assert found.name == "cacert.pem"


def test_the_first_store_that_contains_a_certificate_is_used(tmp_path: Path) -> None:
    store = tmp_path / "store.pem"
    store.write_bytes(make_authority(NOW, "root", None).certificate_pem())

    assert roots.system_roots([tmp_path / "missing.pem", store]) == store


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # of some system's root
def test_java_gets_every_certificate_that_can_be_read(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)

    path = authority.write_java_truststore()

    bag = pkcs12.load_pkcs12(path.read_bytes(), None)
    assert authority.certificate in [each.certificate for each in bag.additional_certs]
    assert mode_of(path) == 0o644


def test_a_root_that_cannot_be_read_does_not_keep_java_from_the_others() -> None:
    pem = make_authority(NOW, "root", None).certificate_pem()
    odd = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

    found = roots.java_truststore_of(odd + pem)

    assert len(pkcs12.load_pkcs12(found, None).additional_certs) == 1


# CAs that were added


def test_a_ca_that_was_added_to_the_system_is_found_with_its_file(tmp_path: Path) -> None:
    pems = {
        name: tmp_path / f"{name}.pem" for name in ("public", "corp", "loose", "ours", "system")
    }
    blocks = {"ours": make_authority(NOW, "host", None).certificate_pem()}
    for name in ("public", "corp", "loose"):
        blocks[name] = trustme.CA(organization_name=name).cert_pem.bytes()
        pems[name].write_bytes(blocks[name])
    pems["system"].write_bytes(b"\n".join(blocks.values()) + b"\n")

    found = roots.roots_beside(pems["system"], [pems["public"]], [pems["corp"]])

    assert {root.file for root in found} == {None, pems["corp"]}
    assert len(found) == 2


def test_a_system_without_a_store_has_no_added_ca(tmp_path: Path) -> None:
    assert roots.roots_beside(tmp_path / "missing.pem", [], []) == ()


def test_an_added_ca_is_shown_with_its_file() -> None:
    assert str(roots.AddedRoot("Corp CA", Path("/corp.crt"))) == "Corp CA (/corp.crt)"
    assert str(roots.AddedRoot("Corp CA", None)) == "Corp CA"
