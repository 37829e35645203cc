"""Keeps the laws of the CA: its key is its owner's alone, and its leaves convince real clients."""

import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.trust import certificate_authority, constraints, roots
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.certificates import LEAF_LIFE, Pair, make_authority
from claude_proxy.trust.private_files import PUBLIC, Folder

PUBLIC_FILES = ("mitmproxy-ca-cert.pem", "mitmproxy-ca-cert.cer", "mitmproxy-ca-cert.p12")
SECRET_FILES = ("mitmproxy-ca.pem", "mitmproxy-ca.p12")
NOW = datetime(2030, 5, 17, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def confdir(tmp_path: Path) -> Path:
    return tmp_path / "config" / "claude-proxy"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def files_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def extension[T: x509.ExtensionType](certificate: x509.Certificate, kind: type[T]) -> T:
    return certificate.extensions.get_extension_for_class(kind).value


# Creation


def test_the_first_start_makes_a_ca_and_the_second_finds_it(confdir: Path) -> None:
    first = CertificateAuthority.load_or_create(confdir)

    second = CertificateAuthority.load_or_create(confdir)

    assert first.fingerprint == second.fingerprint
    assert first.certificate_path == confdir / "mitmproxy-ca-cert.pem"


def test_the_directory_and_its_parents_are_made_for_the_owner_alone(confdir: Path) -> None:
    with umask(0):
        CertificateAuthority.load_or_create(confdir)

    assert mode_of(confdir) == mode_of(confdir.parent) == 0o700


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(confdir: Path, mask: int) -> None:
    with umask(mask):
        CertificateAuthority.load_or_create(confdir).write_bundle()

    assert {mode_of(confdir / name) for name in SECRET_FILES} == {0o600}
    assert {mode_of(confdir / name) for name in (*PUBLIC_FILES, "ca-bundle.pem")} == {0o644}


def test_the_files_are_those_that_mitmproxy_writes(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)

    found = files_in(confdir)

    pem = authority.certificate.public_bytes(Encoding.PEM)
    assert found["mitmproxy-ca-cert.pem"] == found["mitmproxy-ca-cert.cer"] == pem
    assert found["mitmproxy-ca.pem"].endswith(pem)
    bag = pkcs12.load_pkcs12(found["mitmproxy-ca-cert.p12"], None)
    assert bag.key is None
    assert [each.certificate for each in bag.additional_certs] == [authority.certificate]
    secret = pkcs12.load_pkcs12(found["mitmproxy-ca.p12"], None)
    assert secret.cert is not None
    assert secret.cert.certificate == authority.certificate


def test_no_public_file_holds_the_key(confdir: Path) -> None:
    CertificateAuthority.load_or_create(confdir).write_bundle()

    for name in (*PUBLIC_FILES, "ca-bundle.pem"):
        assert b"PRIVATE" not in (confdir / name).read_bytes()


@pytest.mark.parametrize("name", [*PUBLIC_FILES, "mitmproxy-ca.p12"])
def test_a_missing_file_is_made_again_from_the_key(confdir: Path, name: str) -> None:
    fingerprint = CertificateAuthority.load_or_create(confdir).fingerprint
    mode = mode_of(confdir / name)
    (confdir / name).unlink()

    again = CertificateAuthority.load(confdir)

    assert again.fingerprint == fingerprint
    assert mode_of(confdir / name) == mode


def _is_another_cas(path: Path, tmp_path: Path) -> None:
    other = CertificateAuthority.load_or_create(tmp_path / "other")
    shutil.copy(other.certificate_path, path)


def _is_a_link(path: Path, tmp_path: Path) -> None:
    path.rename(tmp_path / "elsewhere.pem")
    path.symlink_to(tmp_path / "elsewhere.pem")


def _is_writable_by_others(path: Path, _tmp_path: Path) -> None:
    path.chmod(0o666)


@pytest.mark.parametrize("spoil", [_is_another_cas, _is_a_link, _is_writable_by_others])
@pytest.mark.parametrize("name", ["mitmproxy-ca-cert.pem", "mitmproxy-ca-cert.cer"])
def test_a_public_file_that_cannot_be_trusted_is_replaced(
    confdir: Path, tmp_path: Path, name: str, spoil: Callable[[Path, Path], None]
) -> None:
    authority = CertificateAuthority.load_or_create(confdir)
    spoil(confdir / name, tmp_path)

    CertificateAuthority.load_or_create(confdir)

    assert (confdir / name).read_bytes() == authority.certificate.public_bytes(Encoding.PEM)
    assert mode_of(confdir / name) == 0o644
    assert not (confdir / name).is_symlink()


START_TOGETHER = """
import sys
from pathlib import Path
from claude_proxy.trust import certificate_authority
print("ready", flush=True)
sys.stdin.readline()
if sys.argv[2] == "rotate":
    certificate_authority.rotate(Path(sys.argv[1]))
else:
    print(certificate_authority.CertificateAuthority.load_or_create(Path(sys.argv[1])).fingerprint)
"""


def run_together(confdir: Path, *jobs: str) -> list[str]:
    """Start a process a job, let all go at once, and return what they printed."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START_TOGETHER, confdir, job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for job in jobs
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(jobs)
    return printed


def test_processes_that_start_at_once_agree_on_one_ca(confdir: Path) -> None:
    fingerprints = run_together(confdir, *["start"] * 5)

    assert set(fingerprints) == {CertificateAuthority.load(confdir).fingerprint + "\n"}


def test_rotations_and_starts_at_once_leave_one_whole_ca(confdir: Path) -> None:
    CertificateAuthority.load_or_create(confdir)

    run_together(confdir, "rotate", "start", "rotate", "start")

    found = files_in(confdir)
    authority = CertificateAuthority.load(confdir)
    assert files_in(confdir) == found  # nothing was left to be fixed
    assert found["mitmproxy-ca-cert.pem"] == authority.certificate.public_bytes(Encoding.PEM)
    secret = pkcs12.load_pkcs12(found["mitmproxy-ca.p12"], None)
    assert secret.cert is not None
    assert secret.cert.certificate == authority.certificate


def test_what_a_killed_process_left_unfinished_is_removed(confdir: Path) -> None:
    with Folder.make(confdir):
        left = confdir / ".mitmproxy-ca.pem.0123456789abcdef.unfinished"
        left.touch()

    CertificateAuthority.load_or_create(confdir)

    assert not left.exists()


def test_a_write_that_fails_leaves_nothing_behind(confdir: Path) -> None:
    with Folder.make(confdir) as folder:
        (confdir / "taken").mkdir()

        with pytest.raises(ConfigError, match="cannot write"):
            folder.write("taken", b"new", PUBLIC)

    assert [path.name for path in confdir.iterdir()] == ["taken"]


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


# Loading


def test_without_a_ca_loading_says_how_to_make_one_and_makes_none(confdir: Path) -> None:
    with pytest.raises(ClaudeProxyError) as caught:
        CertificateAuthority.load(confdir)

    assert caught.value.exit_code == 1
    assert "claude-proxy ca bundle" in str(caught.value.fix)
    assert not confdir.parent.exists()


def test_an_empty_directory_holds_no_ca(confdir: Path) -> None:
    confdir.mkdir(parents=True)

    with pytest.raises(ClaudeProxyError, match="no CA yet"):
        CertificateAuthority.load(confdir)


def test_a_linked_directory_is_judged_by_what_it_leads_to(confdir: Path, tmp_path: Path) -> None:
    CertificateAuthority.load_or_create(confdir)
    link = tmp_path / "dotfiles"
    link.symlink_to(confdir)

    assert CertificateAuthority.load(link).confdir == link


def test_the_ca_of_mitmproxy_keeps_working(confdir: Path) -> None:
    from mitmproxy.certs import CertStore  # noqa: PLC0415 - slow, and only here

    confdir.mkdir(parents=True)
    CertStore.create_store(confdir, "mitmproxy", 2048)
    theirs = files_in(confdir)

    authority = CertificateAuthority.load_or_create(confdir)

    assert authority.describe().key_type == "RSA 2048"
    assert authority.name == "mitmproxy"
    assert {name: (confdir / name).read_bytes() for name in theirs} == theirs
    assert "TLS" in handshake(authority, "example.com")


def test_mitmproxy_takes_our_ca(confdir: Path) -> None:
    from mitmproxy.certs import CertStore  # noqa: PLC0415

    authority = CertificateAuthority.load_or_create(confdir)

    store = CertStore.from_store(confdir, "mitmproxy", 2048)

    assert store.default_ca.to_cryptography() == authority.certificate


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


def certificate_only(data: bytes) -> bytes:
    return data[data.index(b"-----BEGIN CERTIFICATE") :]


def no_key_usage(*, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, key_cert_sign, False, False, False)


CA = x509.BasicConstraints(True, None)
WEAK_RSA = rsa.generate_private_key(65537, 1024)
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())

UNFIT: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "does not hold"),
    "garbage": (b"\x00\xff" * 100, "does not hold"),
    "no certificate": (pem_of(OTHER_KEY), "does not hold"),
    "no key": (certificate_only(authority_file()), "does not hold"),
    "encrypted": (pem_of(OTHER_KEY, b"secret") + certificate_only(authority_file()), "encrypted"),
    "another's certificate": (pem_of(OTHER_KEY) + certificate_only(authority_file()), "together"),
    "a chain": (authority_file() + certificate_only(authority_file()), "more than one"),
    "Ed25519": (authority_file(key=ed25519.Ed25519PrivateKey.generate()), "neither EC nor RSA"),
    "weak": (authority_file(key=WEAK_RSA), "1024 bits"),
    "no CA": (authority_file(extensions=(x509.BasicConstraints(False, None),)), "may not sign"),
    "no constraints": (authority_file(extensions=()), "may not sign"),
    "no signing": (
        authority_file(extensions=(CA, no_key_usage(key_cert_sign=False))),
        "may not sign",
    ),
    "for clients": (
        authority_file(extensions=(CA, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))),
        "may not sign",
    ),
    "intermediate": (authority_file(signer=OTHER_KEY, issuer="above"), "signed by its own key"),
    "forged": (authority_file(signer=OTHER_KEY), "signed by its own key"),
    "expired": (authority_file(end=NOW), "expired on 2030-05-17"),
    "of tomorrow": (authority_file(start=NOW + DAY / 2), "valid from 2030-05-18"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_ca_that_no_client_would_trust_is_refused(confdir: Path, name: str) -> None:
    data, message = UNFIT[name]
    path = place(confdir, data)

    with pytest.raises(ConfigError, match=message) as caught:
        CertificateAuthority.load_or_create(confdir, clock=Clock())

    assert caught.value.where == str(path)
    assert "claude-proxy ca rotate" in str(caught.value.fix)
    assert path.read_bytes() == data


FIT = {
    "bare": authority_file(),
    "for signing": authority_file(extensions=(CA, no_key_usage(key_cert_sign=True))),
    "for anything": authority_file(
        extensions=(CA, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]))
    ),
    "P-384": authority_file(key=ec.generate_private_key(ec.SECP384R1())),
    "certificate first": b"".join(
        [certificate_only(file := authority_file()), file[: file.index(b"-----BEGIN CERT")]]
    ),
}


@pytest.mark.parametrize("name", FIT)
def test_a_ca_of_its_owners_own_making_is_taken(confdir: Path, name: str) -> None:
    place(confdir, FIT[name])

    authority = CertificateAuthority.load_or_create(confdir, clock=Clock())

    leaf = authority.leaf("example.com").certificate
    leaf.verify_directly_issued_by(authority.certificate)
    # It had no key identifier to take over, so it is computed.
    assert extension(leaf, x509.AuthorityKeyIdentifier).key_identifier is not None


def test_a_ca_without_a_common_name_is_called_by_its_whole_name(confdir: Path) -> None:
    unnamed = (x509.NameAttribute(NameOID.ORGANIZATION_NAME, "root"),)
    key = ec.generate_private_key(ec.SECP256R1())
    place(confdir, authority_file(key=key))
    odd = Pair(x509.load_pem_x509_certificate(authority_file(key=key, subject=unnamed)), key)

    assert CertificateAuthority(confdir, odd).name == "O=root"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o660, 0o666, 0o610])
@pytest.mark.parametrize("name", SECRET_FILES)
def test_a_key_that_others_may_use_is_refused(confdir: Path, name: str, mode: int) -> None:
    CertificateAuthority.load_or_create(confdir)
    (confdir / name).chmod(mode)

    with pytest.raises(ConfigError, match="by others") as caught:
        CertificateAuthority.load_or_create(confdir)

    assert caught.value.where == str(confdir / name)
    assert str(caught.value.fix).startswith(f"chmod go-rwx {confdir / name}")


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_may_write_is_refused(confdir: Path, mode: int) -> None:
    CertificateAuthority.load_or_create(confdir)
    confdir.chmod(mode)

    with pytest.raises(ConfigError, match="can be written by others") as caught:
        CertificateAuthority.load_or_create(confdir)

    assert caught.value.where == str(confdir)
    assert str(caught.value.fix).startswith(f"chmod go-w {confdir}")


def test_no_key_is_put_where_others_may_write(confdir: Path) -> None:
    confdir.mkdir(parents=True)
    confdir.chmod(0o777)

    with pytest.raises(ConfigError, match="can be written by others"):
        certificate_authority.rotate(confdir)

    assert files_in(confdir) == {}


def test_a_directory_that_others_may_read_will_do(confdir: Path) -> None:
    fingerprint = CertificateAuthority.load_or_create(confdir).fingerprint
    confdir.chmod(0o755)

    assert CertificateAuthority.load(confdir).fingerprint == fingerprint


def test_what_belongs_to_somebody_else_is_refused(
    confdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CertificateAuthority.load_or_create(confdir)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    with pytest.raises(ConfigError, match=f"belongs to another user .uid {owner}"):
        CertificateAuthority.load_or_create(confdir)


def test_a_key_behind_a_link_is_refused(confdir: Path, tmp_path: Path) -> None:
    CertificateAuthority.load_or_create(confdir)
    path = confdir / "mitmproxy-ca.pem"
    path.rename(tmp_path / "elsewhere.pem")
    path.symlink_to(tmp_path / "elsewhere.pem")

    with pytest.raises(ConfigError, match="symbolic link"):
        CertificateAuthority.load_or_create(confdir)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_key_that_is_no_file_is_refused_at_once(
    confdir: Path, make: Callable[[Path], None]
) -> None:
    confdir.mkdir(parents=True)
    make(confdir / "mitmproxy-ca.pem")

    with pytest.raises(ConfigError, match="not a regular file"):
        CertificateAuthority.load_or_create(confdir)


@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_where_the_directory_should_be_is_an_error(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(ConfigError, match="not a directory") as caught:
        CertificateAuthority.load_or_create(file / below)

    assert "--confdir" in str(caught.value.fix)


def test_a_directory_that_cannot_be_made_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cannot use the directory"):
        CertificateAuthority.load_or_create(Path("/proc/claude-proxy"))


def test_a_directory_that_cannot_be_locked_is_an_error(confdir: Path) -> None:
    (confdir / ".ca.lock").mkdir(parents=True)

    with pytest.raises(ConfigError, match="cannot lock"):
        CertificateAuthority.load_or_create(confdir)


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
def test_what_is_not_one_host_gets_no_leaf(confdir: Path, host: str) -> None:
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


def test_a_leaf_is_kept_until_half_its_life_is_over(confdir: Path) -> None:
    clock = Clock()
    authority = CertificateAuthority.load_or_create(confdir, clock=clock)
    first = authority.leaf("example.com")

    clock.now = NOW + LEAF_LIFE / 2 - timedelta(seconds=1)
    assert authority.leaf("example.com") is first

    clock.now = NOW + LEAF_LIFE / 2
    assert authority.leaf("example.com") is not first


def test_a_clock_set_back_past_a_leafs_beginning_renews_it(confdir: Path) -> None:
    clock = Clock()
    authority = CertificateAuthority.load_or_create(confdir, clock=clock)
    clock.now = NOW + 300 * DAY
    ahead = authority.leaf("example.com")

    clock.now = NOW

    assert authority.leaf("example.com") is not ahead
    assert authority.leaf("example.com").not_before <= NOW


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


def test_an_expired_ca_signs_no_more(confdir: Path) -> None:
    place(confdir, authority_file())
    clock = Clock()
    authority = CertificateAuthority.load_or_create(confdir, clock=clock)
    authority.leaf("example.com")

    clock.now = NOW + DAY

    with pytest.raises(ConfigError, match="expired"):
        authority.leaf("example.com")


def test_the_store_of_leaves_is_bounded_and_keeps_what_is_used(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)
    used = authority.leaf("used.example.com")
    unused = authority.leaf("unused.example.com")

    for number in range(1023):
        authority.leaf(f"{number}.example.com")
        assert authority.leaf("used.example.com") is used

    assert authority.leaf("unused.example.com") is not unused
    assert len(authority._leaves) == 1024


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


@pytest.mark.parametrize("host", ["api.example.com", LONG, "192.0.2.7", "2001:db8::7"])
def test_a_strict_client_accepts_a_leaf(confdir: Path, host: str) -> None:
    authority = CertificateAuthority.load_or_create(confdir)

    assert handshake(authority, host) == "TLSv1.3"


ALLOWED = ("api.example.com", "*.good.example", "10.0.0.0/8")


@pytest.mark.parametrize("host", ["api.example.com", "x.y.good.example", "10.1.2.3"])
def test_a_client_accepts_what_the_constraints_cover(confdir: Path, host: str) -> None:
    authority = certificate_authority.rotate(confdir, ALLOWED).authority

    assert handshake(authority, host) == "TLSv1.3"


@pytest.mark.parametrize(
    "host", ["example.com", "evil.example", "apixexample.com", LONG, "192.0.2.7", "2001:db8::7"]
)
def test_a_client_refuses_what_the_constraints_do_not_cover(confdir: Path, host: str) -> None:
    authority = certificate_authority.rotate(confdir, ALLOWED).authority

    with pytest.raises(ssl.SSLCertVerificationError, match="subtree violation"):
        handshake(authority, host)


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        (["api.example.com"], "192.0.2.7"),
        (["api.example.com"], "2001:db8::7"),
        (["192.0.2.0/24"], "api.example.com"),
        (["192.0.2.0/24"], "2001:db8::7"),
        (["2001:db8::/32"], "192.0.2.7"),
    ],
)
def test_a_form_of_name_that_is_not_allowed_is_not_open(
    confdir: Path, allowed: list[str], host: str
) -> None:
    authority = certificate_authority.rotate(confdir, allowed).authority

    with pytest.raises(ssl.SSLCertVerificationError, match="subtree violation"):
        handshake(authority, host)


@contextmanager
def tls_server(authority: CertificateAuthority, host: str, directory: Path) -> Iterator[int]:
    """Answer one HTTPS request for `host` on a loopback port, and yield the port."""
    _, context = contexts(authority, host, directory)
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        try:
            with listener.accept()[0] as raw, context.wrap_socket(raw, server_side=True) as tls:
                tls.recv(65536)
                tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        except OSError:
            pass  # a client that refuses the certificate hangs up

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join()
        listener.close()


NODE = """
const [port, host, ca] = process.argv.slice(1)
const tls = require('tls')
const verified = () => { console.log('ok'); socket.end() }
const socket = tls.connect({ host: '127.0.0.1', port, servername: host }, verified)
socket.on('error', error => { console.log(error.message); process.exit(1) })
"""


def ask_curl(program: Callable[[str], str], port: int, host: str, bundle: Path) -> int:
    line = [program("curl"), "-sS", "--noproxy", "*", "--cacert", str(bundle), "--connect-to"]
    line += [f"{host}:{port}:127.0.0.1:{port}", f"https://{host}:{port}/"]
    return subprocess.run(line, capture_output=True, check=False).returncode


def ask_node(program: Callable[[str], str], port: int, host: str, certificate: Path) -> int:
    environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(certificate)}
    line = [program("node"), "-e", NODE, str(port), host]
    return subprocess.run(line, env=environment, capture_output=True, check=False).returncode


def ask_openssl(program: Callable[[str], str], leaf: Path, certificate: Path) -> int:
    line = [program("openssl"), "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"]
    line += [str(certificate), str(leaf)]
    return subprocess.run(line, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("host", "codes"), [("api.example.com", (0, 0, 0)), ("evil.example", (60, 1, 2))]
)
def test_curl_node_and_openssl_keep_to_the_constraints(
    confdir: Path,
    tmp_path: Path,
    program: Callable[[str], str],
    host: str,
    codes: tuple[int, int, int],
) -> None:
    authority = certificate_authority.rotate(confdir, ALLOWED).authority
    certificate = authority.certificate_path

    with tls_server(authority, host, tmp_path) as port:
        curl = ask_curl(program, port, host, authority.bundle_path)
    with tls_server(authority, host, tmp_path) as port:
        node = ask_node(program, port, host, certificate)
    openssl = ask_openssl(program, tmp_path / "leaf.pem", certificate)

    assert (curl, node, openssl) == codes


# Name constraints


def form_of(
    patterns: list[str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = constraints.constraints_for(patterns)
    return (
        constraints.spelled(found.permitted_subtrees),
        constraints.spelled(found.excluded_subtrees),
    )


NO_ADDRESS = ("0.0.0.0/0", "::/0")


@pytest.mark.parametrize(
    ("patterns", "permitted", "excluded"),
    [
        (["api.x.com"], ("api.x.com",), NO_ADDRESS),
        (["*.x.com"], ("x.com",), NO_ADDRESS),
        ([".x.com"], ("x.com",), NO_ADDRESS),
        ([".x.com", "a.b.x.com", "ax.com", "x.com"], ("ax.com", "x.com"), NO_ADDRESS),
        (["x.com", "192.0.2.1"], ("x.com", "192.0.2.1/32"), ("::/0",)),
        (["2001:db8::1"], ("2001:db8::1/128",), ("every name", "0.0.0.0/0")),
        (["10.0.0.0/9", "10.128.0.0/9"], ("10.0.0.0/8",), ("every name", "::/0")),
        (["x.com", "192.0.2.1", "2001:db8::/32"], ("x.com", "192.0.2.1/32", "2001:db8::/32"), ()),
    ],
)
def test_patterns_become_the_narrowest_constraints_that_hold_them(
    patterns: list[str], permitted: tuple[str, ...], excluded: tuple[str, ...]
) -> None:
    assert form_of(patterns) == (permitted, excluded)


def test_an_allowlist_without_hosts_constrains_nothing_and_is_an_error(confdir: Path) -> None:
    before = CertificateAuthority.load_or_create(confdir)
    files = files_in(confdir)

    with pytest.raises(ConfigError, match="names no host"):
        certificate_authority.rotate(confdir, [])

    assert files_in(confdir) == files
    assert CertificateAuthority.load(confdir).fingerprint == before.fingerprint


LABELS = st.sampled_from(["a", "b", "example", "com", "org"])
NAMES = st.builds(
    lambda prefix, labels: prefix + ".".join(labels),
    st.sampled_from(["", ".", "*."]),
    st.lists(LABELS, min_size=1, max_size=4),
)
RANGES = st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1", "2001:db8::/32", "::1"])
PATTERNS = st.lists(NAMES | RANGES, min_size=1, max_size=8)


@given(patterns=PATTERNS)
def test_what_a_ca_was_constrained_to_is_never_outside(patterns: list[str]) -> None:
    assert constraints.outside(constraints.constraints_for(patterns), patterns) == ()


@given(patterns=PATTERNS, other=st.sampled_from(["net", "x.net", "172.16.0.0/12", "fd00::/8"]))
def test_what_a_ca_was_not_constrained_to_is_outside(patterns: list[str], other: str) -> None:
    assert constraints.outside(constraints.constraints_for(patterns), [other]) == (other,)


@pytest.mark.parametrize("pattern", ["10.0.0.0/7", "0.0.0.0/0", "com", "*.com"])
def test_a_pattern_wider_than_the_constraints_is_outside(confdir: Path, pattern: str) -> None:
    authority = certificate_authority.rotate(confdir, ["10.0.0.0/8", "x.com"]).authority

    assert authority.outside(["x.com", pattern]) == (pattern,)


def test_an_exclusion_of_a_part_puts_the_whole_pattern_outside() -> None:
    found = x509.NameConstraints(None, [x509.DNSName("a.x.com")])

    assert constraints.outside(found, ["x.com", "b.x.com", "a.x.com", "10.0.0.1"]) == (
        "x.com",
        "a.x.com",
    )


def test_nothing_is_outside_a_ca_without_constraints(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)

    assert authority.outside(["x.com", "10.0.0.1"]) == ()


# Rotation


def test_rotation_keeps_the_old_ca_aside_as_it_was(confdir: Path) -> None:
    CertificateAuthority.load_or_create(confdir)
    before = files_in(confdir)

    done = certificate_authority.rotate(confdir, clock=Clock())

    assert {
        path.name.replace("-20300517T120000Z", ""): path.read_bytes() for path in done.kept
    } == {name: data for name, data in before.items() if name.startswith("mitmproxy")}
    assert {path.name: mode_of(path) for path in done.kept} == {
        "mitmproxy-ca-20300517T120000Z.pem": 0o600,
        "mitmproxy-ca-20300517T120000Z.p12": 0o600,
        "mitmproxy-ca-cert-20300517T120000Z.pem": 0o644,
        "mitmproxy-ca-cert-20300517T120000Z.cer": 0o644,
        "mitmproxy-ca-cert-20300517T120000Z.p12": 0o644,
    }


def test_the_new_ca_is_in_force_everywhere(confdir: Path) -> None:
    old = CertificateAuthority.load_or_create(confdir)
    old.write_bundle()

    new = certificate_authority.rotate(confdir).authority

    assert new.fingerprint != old.fingerprint
    assert CertificateAuthority.load(confdir).fingerprint == new.fingerprint
    pem = new.certificate.public_bytes(Encoding.PEM).strip()
    assert pem in (confdir / "ca-bundle.pem").read_bytes()
    assert old.certificate.public_bytes(Encoding.PEM).strip() not in new.bundle_pem()


def test_two_rotations_in_one_second_keep_both(confdir: Path) -> None:
    CertificateAuthority.load_or_create(confdir)

    kept = [
        *certificate_authority.rotate(confdir, clock=Clock()).kept,
        *certificate_authority.rotate(confdir, clock=Clock()).kept,
    ]

    assert len(set(kept)) == 10
    assert len({path.read_bytes() for path in kept if path.match("mitmproxy-ca-2*.pem")}) == 2


def test_the_first_ca_may_come_of_a_rotation(confdir: Path) -> None:
    done = certificate_authority.rotate(confdir, ["x.com"])

    assert done.kept == ()
    assert CertificateAuthority.load(confdir).describe().permitted == ("x.com",)


def _broken(path: Path) -> None:
    path.write_bytes(b"broken")


def _exposed(path: Path) -> None:
    path.chmod(0o644)


def _linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere.pem"))
    path.symlink_to("elsewhere.pem")


@pytest.mark.parametrize("spoil", [_broken, _exposed, _linked])
def test_rotation_fixes_a_ca_that_is_refused(confdir: Path, spoil: Callable[[Path], None]) -> None:
    CertificateAuthority.load_or_create(confdir)
    spoil(confdir / "mitmproxy-ca.pem")
    with pytest.raises(ConfigError):
        CertificateAuthority.load(confdir)

    new = certificate_authority.rotate(confdir).authority

    assert CertificateAuthority.load(confdir).fingerprint == new.fingerprint


@pytest.mark.parametrize("name", [*PUBLIC_FILES, "mitmproxy-ca.p12"])
def test_a_rotation_that_stopped_half_way_is_finished_by_the_next_start(
    confdir: Path, name: str
) -> None:
    # The files are written in this order, so a crash leaves the old ones from some point on.
    order = ["mitmproxy-ca.p12", PUBLIC_FILES[2], PUBLIC_FILES[1], PUBLIC_FILES[0]]
    CertificateAuthority.load_or_create(confdir)
    old = files_in(confdir)
    new = certificate_authority.rotate(confdir).authority
    for each in order[order.index(name) :]:
        (confdir / each).write_bytes(old[each])

    CertificateAuthority.load(confdir)

    certificate = new.certificate
    for each in (PUBLIC_FILES[0], PUBLIC_FILES[1]):
        assert (confdir / each).read_bytes() == certificate.public_bytes(Encoding.PEM)
    for each in (PUBLIC_FILES[2], "mitmproxy-ca.p12"):
        bag = pkcs12.load_pkcs12((confdir / each).read_bytes(), None)
        found = bag.cert or bag.additional_certs[0]
        assert found.certificate == certificate


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


def test_a_ca_that_the_system_trusts_already_is_in_the_bundle_once(tmp_path: Path) -> None:
    pem = make_authority(NOW, "host", None).certificate_pem()
    system = tmp_path / "roots.crt"
    system.write_bytes(b"# ours\r\n" + pem.replace(b"\n", b"\r\n"))

    assert roots.bundle_of(pem, system).count(b"BEGIN CERTIFICATE") == 1


def test_a_bundle_that_is_up_to_date_is_left_alone(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)
    before = authority.write_bundle().stat()

    after = authority.write_bundle().stat()

    assert after.st_ino == before.st_ino


def test_a_stale_bundle_is_written_again(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)
    authority.write_bundle().write_bytes(b"old")

    assert authority.write_bundle().read_bytes() == authority.bundle_pem()


def test_the_callers_ssl_cert_file_is_not_asked(
    confdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "planted.pem"
    planted.write_bytes(make_authority(NOW, "evil", None).certificate_pem())
    monkeypatch.setenv("SSL_CERT_FILE", str(planted))

    pem = CertificateAuthority.load_or_create(confdir).bundle_pem()

    assert planted.read_bytes().strip() not in pem


def test_without_a_system_store_certifis_roots_are_taken(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()

    found = roots.system_roots([tmp_path / "missing.pem", empty])

    assert found.name == "cacert.pem"


def test_the_first_store_that_holds_a_certificate_is_taken(tmp_path: Path) -> None:
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


def test_the_description_can_be_written_as_json(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)

    facts = authority.describe()

    assert json.dumps(facts.files)
    assert facts.files[str(confdir / "mitmproxy-ca.pem")] == 0o600
    assert facts.subject == authority.certificate.subject.rfc4514_string()
