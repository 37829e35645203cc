"""Private files: owners, modes, locks, and what a killed or failed write leaves."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.trust import certificate_authority
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.private_files import PUBLIC, Folder
from tests.trust.authorities import PUBLIC_FILES, files_in, mode_of

SECRET_FILES = ("mitmproxy-ca.pem", "mitmproxy-ca.p12")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


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


def test_what_another_process_writes_beside_the_ca_is_not_removed(confdir: Path) -> None:
    with Folder.make(confdir) as folder:
        written = confdir / "upstream-roots.pem"
        half = confdir / f".{written.name}.0123456789abcdef.unfinished"
        half.touch()  # as `file_replacement.replace` does, a moment before it renames it

        with folder.locked():
            pass

    assert half.exists()


def test_what_a_killed_process_left_unfinished_is_removed(confdir: Path) -> None:
    with Folder.make(confdir):
        left = confdir / ".mitmproxy-ca.pem.0123456789abcdef.unwritten"
        left.touch()

    CertificateAuthority.load_or_create(confdir)

    assert not left.exists()


def test_a_write_that_fails_leaves_nothing_behind(confdir: Path) -> None:
    with Folder.make(confdir) as folder:
        (confdir / "taken").mkdir()

        with pytest.raises(ConfigError, match="cannot write"):
            folder.write("taken", b"new", PUBLIC)

    assert [path.name for path in confdir.iterdir()] == ["taken"]


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


def test_a_directory_that_others_may_read_is_accepted(confdir: Path) -> None:
    fingerprint = CertificateAuthority.load_or_create(confdir).fingerprint
    confdir.chmod(0o755)

    assert CertificateAuthority.load(confdir).fingerprint == fingerprint


def test_a_file_of_another_user_is_refused(confdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_key_that_is_not_a_regular_file_is_refused_without_blocking(
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
