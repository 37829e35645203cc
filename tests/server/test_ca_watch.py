"""The owner is told when the CA ends, is gone or changes, and a new one is taken."""

from datetime import timedelta
from pathlib import Path

import pytest

from claude_proxy.events import Notice
from claude_proxy.server.ca_watch import CaWatch
from claude_proxy.trust import certificate_authority
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.certificates import AUTHORITY_LIFE
from tests.trust.authorities import Clock


class Owner:
    """A CA that is watched, and what its owner sees."""

    def __init__(self, confdir: Path, *, replace: bool = True) -> None:
        self.confdir, self.clock = confdir, Clock()
        self.authority = CertificateAuthority.load_or_create(confdir, clock=self.clock)
        self.said: list[str] = []
        self.notices: list[Notice] = []
        self.watch = CaWatch(
            self.authority,
            report=self.said.extend,
            record=self.notices.append,
            replace=replace,
        )

    def looks(self, times: int = 3) -> None:
        for _ in range(times):
            self.watch.look()

    def rotates(self) -> str:
        made = certificate_authority.rotate(self.confdir, clock=self.clock)
        return made.authority.fingerprint


@pytest.fixture
def confdir(tmp_path: Path) -> Path:
    return tmp_path / "conf"


@pytest.fixture
def owner(confdir: Path) -> Owner:
    return Owner(confdir)


def test_a_ca_that_is_well_is_not_spoken_of(owner: Owner) -> None:
    owner.looks()

    assert (owner.said, owner.notices, owner.watch.is_valid()) == ([], [], True)


def test_a_ca_that_ends_is_told_once_with_place_and_fix(owner: Owner) -> None:
    owner.clock.now += AUTHORITY_LIFE + timedelta(days=1)

    owner.looks()

    assert not owner.watch.is_valid()
    what, where, fix = owner.said
    assert "the CA certificate expired on" in what
    assert "mitmproxy-ca.pem" in where
    assert "claude-proxy ca rotate" in fix
    assert [notice.kind for notice in owner.notices] == ["ca-unusable"]


def test_a_renewed_ca_is_taken_and_told(owner: Owner) -> None:
    owner.clock.now += AUTHORITY_LIFE + timedelta(days=1)
    owner.looks()
    renewed = owner.rotates()

    owner.looks()

    assert owner.watch.is_valid()
    assert owner.authority.fingerprint == renewed
    assert (
        owner.authority.leaf("a.example").certificate.issuer == owner.authority.certificate.subject
    )
    assert [notice.kind for notice in owner.notices] == ["ca-unusable", "ca-replaced"]
    assert "clients must trust" in owner.said[-1]


def test_a_ca_that_is_gone_is_told_and_the_one_in_memory_stays(owner: Owner) -> None:
    (owner.confdir / "mitmproxy-ca.pem").unlink()

    owner.looks()

    assert owner.watch.is_valid()
    assert "the file of the CA is gone" in owner.said[0]
    assert [notice.kind for notice in owner.notices] == ["ca-unusable"]


def test_a_file_that_is_no_ca_is_told_and_the_one_in_memory_stays(owner: Owner) -> None:
    before = owner.authority.fingerprint
    (owner.confdir / "mitmproxy-ca.pem").write_text("half")

    owner.looks()

    assert owner.watch.is_valid()
    assert owner.authority.fingerprint == before
    assert "has no private key and certificate" in owner.said[0]


def test_a_file_that_is_broken_for_a_moment_is_not_spoken_of(owner: Owner) -> None:
    path = owner.confdir / "mitmproxy-ca.pem"
    whole = path.read_bytes()
    path.write_text("half")
    owner.looks(1)
    path.write_bytes(whole)

    owner.looks()

    assert owner.said == []


def test_a_run_keeps_the_ca_that_its_programs_trust_until_it_ends(confdir: Path) -> None:
    owner = Owner(confdir, replace=False)
    before = owner.authority.fingerprint
    owner.clock.now += AUTHORITY_LIFE - timedelta(hours=1)
    renewed = owner.rotates()
    owner.looks()
    kept = owner.authority.fingerprint

    owner.clock.now += timedelta(hours=2)
    owner.looks()

    assert (kept, owner.authority.fingerprint) == (before, renewed)


def test_a_gateway_alone_has_no_ca_to_watch() -> None:
    watch = CaWatch(None, report=list.clear, record=print)

    watch.look()

    assert watch.is_valid()
