"""Laws of the CA: only its owner can use its key, and real clients accept its leaves."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.trust import certificate_authority, roots
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.certificates import LEAF_LIFE, Pair, make_authority
from tests.trust.authorities import (
    DAY,
    NOW,
    PUBLIC_FILES,
    Clock,
    authority_file,
    extension,
    files_in,
    handshake,
    mode_of,
    pem_of,
    place,
)

# Creation


def test_the_first_start_creates_a_ca_and_the_second_loads_it(confdir: Path) -> None:
    first = CertificateAuthority.load_or_create(confdir)

    second = CertificateAuthority.load_or_create(confdir)

    assert first.fingerprint == second.fingerprint
    assert first.certificate_path == confdir / "mitmproxy-ca-cert.pem"


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


def test_processes_that_start_simultaneously_agree_on_one_ca(confdir: Path) -> None:
    fingerprints = run_together(confdir, *["start"] * 5)

    assert set(fingerprints) == {CertificateAuthority.load(confdir).fingerprint + "\n"}


def test_simultaneous_rotations_and_starts_leave_one_complete_ca(confdir: Path) -> None:
    CertificateAuthority.load_or_create(confdir)

    run_together(confdir, "rotate", "start", "rotate", "start")

    found = files_in(confdir)
    authority = CertificateAuthority.load(confdir)
    assert files_in(confdir) == found  # nothing was left to be fixed
    assert found["mitmproxy-ca-cert.pem"] == authority.certificate.public_bytes(Encoding.PEM)
    secret = pkcs12.load_pkcs12(found["mitmproxy-ca.p12"], None)
    assert secret.cert is not None
    assert secret.cert.certificate == authority.certificate


# Loading


def test_loading_without_a_ca_says_how_to_create_one_and_creates_none(confdir: Path) -> None:
    with pytest.raises(ClaudeProxyError) as caught:
        CertificateAuthority.load(confdir)

    assert caught.value.exit_code == 1
    assert "claude-proxy ca bundle" in str(caught.value.fix)
    assert not confdir.parent.exists()


def test_an_empty_directory_holds_no_ca(confdir: Path) -> None:
    confdir.mkdir(parents=True)

    with pytest.raises(ClaudeProxyError, match="no CA yet"):
        CertificateAuthority.load(confdir)


def test_a_linked_directory_is_checked_by_its_target(confdir: Path, tmp_path: Path) -> None:
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


def certificate_only(data: bytes) -> bytes:
    return data[data.index(b"-----BEGIN CERTIFICATE") :]


def no_key_usage(*, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, key_cert_sign, False, False, False)


CA = x509.BasicConstraints(True, None)


WEAK_RSA = rsa.generate_private_key(65537, 1024)


OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


UNFIT: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "has no private key"),
    "garbage": (b"\x00\xff" * 100, "has no private key"),
    "no certificate": (pem_of(OTHER_KEY), "has no private key"),
    "no key": (certificate_only(authority_file()), "has no private key"),
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
def test_a_ca_that_the_owner_made_is_accepted(confdir: Path, name: str) -> None:
    place(confdir, FIT[name])

    authority = CertificateAuthority.load_or_create(confdir, clock=Clock())

    leaf = authority.leaf("example.com").certificate
    leaf.verify_directly_issued_by(authority.certificate)
    # It had no key identifier to take over, so it is computed.
    assert extension(leaf, x509.AuthorityKeyIdentifier).key_identifier is not None


def test_a_ca_without_a_common_name_has_its_whole_subject_as_name(confdir: Path) -> None:
    unnamed = (x509.NameAttribute(NameOID.ORGANIZATION_NAME, "root"),)
    key = ec.generate_private_key(ec.SECP256R1())
    place(confdir, authority_file(key=key))
    odd = Pair(x509.load_pem_x509_certificate(authority_file(key=key, subject=unnamed)), key)

    assert CertificateAuthority(confdir, odd).name == "O=root"


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


def test_an_expired_ca_signs_no_more(confdir: Path) -> None:
    place(confdir, authority_file())
    clock = Clock()
    authority = CertificateAuthority.load_or_create(confdir, clock=clock)
    authority.leaf("example.com")

    clock.now = NOW + DAY

    with pytest.raises(ConfigError, match="expired"):
        authority.leaf("example.com")


def test_the_cache_of_leaves_is_limited_and_keeps_recently_used_ones(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)
    used = authority.leaf("used.example.com")
    unused = authority.leaf("unused.example.com")

    for number in range(1023):
        authority.leaf(f"{number}.example.com")
        assert authority.leaf("used.example.com") is used

    assert authority.leaf("unused.example.com") is not unused
    assert len(authority._leaves) == 1024


def test_an_allowlist_without_hosts_constrains_nothing_and_is_an_error(confdir: Path) -> None:
    before = CertificateAuthority.load_or_create(confdir)
    files = files_in(confdir)

    with pytest.raises(ConfigError, match="names no host"):
        certificate_authority.rotate(confdir, [])

    assert files_in(confdir) == files
    assert CertificateAuthority.load(confdir).fingerprint == before.fingerprint


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


def test_a_rotation_can_create_the_first_ca(confdir: Path) -> None:
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


def test_the_description_can_be_written_as_json(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)

    facts = authority.describe()

    assert json.dumps(facts.files)
    assert facts.files[str(confdir / "mitmproxy-ca.pem")] == 0o600
    assert facts.subject == authority.certificate.subject.rfc4514_string()
