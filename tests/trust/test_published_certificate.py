"""The certificate that a run shows, read without looking into it."""

import subprocess
import sys
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.trust.certificate_authority import CertificateAuthority, rotate
from claude_proxy.trust.published_certificate import (
    AUTHORITY_FILE,
    AUTHORITY_P12_FILE,
    CERTIFICATE_CER_FILE,
    CERTIFICATE_FILE,
    CERTIFICATE_P12_FILE,
    published_certificate,
)


@pytest.fixture
def authority(confdir: Path) -> CertificateAuthority:
    return CertificateAuthority.load_or_create(confdir)


def test_what_is_published_is_the_certificate_of_the_ca(authority: CertificateAuthority) -> None:
    found = published_certificate(authority.confdir)

    assert found == authority.certificate_path.read_bytes()


def test_without_a_directory_or_a_ca_there_is_none(confdir: Path, tmp_path: Path) -> None:
    assert published_certificate(confdir / "missing") is None
    assert published_certificate(tmp_path) is None


@pytest.mark.parametrize(
    "name", [AUTHORITY_P12_FILE, CERTIFICATE_FILE, CERTIFICATE_CER_FILE, CERTIFICATE_P12_FILE]
)
def test_a_file_that_is_missing_is_looked_at_by_the_ca(
    authority: CertificateAuthority, name: str
) -> None:
    (authority.confdir / name).unlink()

    assert published_certificate(authority.confdir) is None


def test_a_certificate_of_another_ca_is_not_taken(authority: CertificateAuthority) -> None:
    before = {
        name: (authority.confdir / name).read_bytes()
        for name in (CERTIFICATE_FILE, CERTIFICATE_CER_FILE)
    }
    rotate(authority.confdir)
    for name, content in before.items():
        (authority.confdir / name).write_bytes(content)

    assert published_certificate(authority.confdir) is None


def test_a_ca_with_a_second_certificate_is_looked_at_by_the_ca(
    authority: CertificateAuthority,
) -> None:
    with (authority.confdir / AUTHORITY_FILE).open("ab") as file:
        file.write(authority.certificate_path.read_bytes())

    assert published_certificate(authority.confdir) is None


def test_a_certificate_that_others_can_write_is_looked_at_by_the_ca(
    authority: CertificateAuthority,
) -> None:
    authority.certificate_path.chmod(0o666)

    assert published_certificate(authority.confdir) is None


def test_a_key_that_others_can_read_is_an_error(authority: CertificateAuthority) -> None:
    (authority.confdir / AUTHORITY_FILE).chmod(0o644)

    with pytest.raises(ConfigError):
        published_certificate(authority.confdir)


def test_it_needs_no_cryptography(authority: CertificateAuthority) -> None:
    program = (
        "import sys; from pathlib import Path; "
        "from claude_proxy.trust.published_certificate import published_certificate; "
        "print(bool(published_certificate(Path(sys.argv[1]))), 'cryptography' in sys.modules)"
    )
    words = [sys.executable, "-c", program, str(authority.confdir)]

    done = subprocess.run(words, capture_output=True, check=True)

    assert done.stdout == b"True False\n"
