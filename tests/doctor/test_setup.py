"""The setup is read as the proxy would read it, and nothing is changed."""

import os
from collections import namedtuple
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from claude_proxy.audit.database import database_in
from claude_proxy.audit.store import AuditStore
from claude_proxy.config.settings import Settings
from claude_proxy.doctor import setup
from claude_proxy.doctor.bounded_run import guarded
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.finding import Finding, Level
from claude_proxy.events import Notice
from claude_proxy.trust.certificate_authority import CertificateAuthority, rotate

LEADING = {"HTTPS_PROXY": "http://127.0.0.1:9051"}


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    allowlist = tmp_path / "allowlist.yaml"
    allowlist.write_text("allow: [one.example, two.example]\ndeny: [{host: one.example}]\n")
    settings = Settings(allowlist, tmp_path / "conf", tmp_path / "state")
    return Subject(settings, {}, "linux")


@pytest.fixture
def authority(subject: Subject) -> CertificateAuthority:
    return CertificateAuthority.load_or_create(subject.settings.confdir)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_directories_that_the_first_start_creates_are_ok(subject: Subject) -> None:
    found = setup.check_directories(subject)

    assert [each.level for each in found] == [Level.OK, Level.OK]
    assert not subject.settings.confdir.exists()


def test_directories_are_shown_with_their_mode(subject: Subject) -> None:
    subject.settings.confdir.mkdir(mode=0o700)

    assert "mode 0700" in setup.check_directories(subject)[0].what


def test_where_the_ca_is_apart_nothing_is_written_into_the_configuration(
    subject: Subject, tmp_path: Path
) -> None:
    apart = replace(subject, settings=replace(subject.settings, cadir=tmp_path / "ca"))
    CertificateAuthority.load_or_create(tmp_path / "ca")

    found = by_name([*setup.check_directories(apart), *setup.check_authority(apart)])

    assert found["confdir"].what.endswith("does not exist")
    assert "mode 0700" in found["cadir"].what
    assert {each.level for each in found.values()} <= {Level.OK, Level.WARNING}
    assert not any("first start" in each.what for each in found.values() if each.name != "statedir")


def test_a_directory_that_others_may_write_is_an_error(subject: Subject) -> None:
    subject.settings.confdir.mkdir()
    subject.settings.confdir.chmod(0o777)

    [found] = guarded("directories", lambda: setup.check_directories(subject))

    assert found.level is Level.ERROR
    assert found.fix


def test_a_directory_that_may_not_be_written_or_made_is_an_error(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    subject.settings.confdir.mkdir()

    confdir, statedir = setup.check_directories(subject)

    assert (confdir.level, confdir.fix) == (
        Level.ERROR,
        f"chmod u+rwx {subject.settings.confdir}",
    )
    assert (statedir.level, statedir.fix) == (Level.ERROR, "use another one: --statedir")


def test_the_allowlist_is_counted(subject: Subject) -> None:
    [found] = setup.check_allowlist(subject)

    assert (found.level, found.what.partition(": ")[2]) == (Level.OK, "2 to allow, 1 to deny")


def test_an_allowlist_that_allows_nothing_is_a_warning(subject: Subject) -> None:
    subject.settings.allowlist.write_text("allow: []\n")

    [found] = setup.check_allowlist(subject)

    assert (found.level, found.fix) == (Level.WARNING, "claude-proxy allow HOST")


def test_an_allowlist_that_cannot_be_read_is_an_error_with_its_fix(subject: Subject) -> None:
    subject.settings.allowlist.write_text('allow: ["*"]\n')

    [found] = guarded("allowlist", lambda: setup.check_allowlist(subject))

    assert found.level is Level.ERROR
    assert found.fix


def test_a_missing_ca_before_the_first_start_is_ok(subject: Subject) -> None:
    [found] = setup.check_authority(subject)

    assert found.level is Level.OK
    assert not subject.settings.confdir.exists()


def test_a_ca_that_is_broken_is_an_error(subject: Subject, authority: CertificateAuthority) -> None:
    path = subject.settings.confdir / "mitmproxy-ca.pem"
    path.write_text("broken")

    [found] = guarded("CA", lambda: setup.check_authority(subject))

    assert authority.name
    assert found.level is Level.ERROR


def test_a_ca_that_can_be_read_by_others_is_an_error(
    subject: Subject, authority: CertificateAuthority
) -> None:
    (subject.settings.confdir / "mitmproxy-ca.pem").chmod(0o644)

    [found] = guarded("CA", lambda: setup.check_authority(subject))

    assert authority.name
    assert found.level is Level.ERROR
    assert found.fix


def test_a_valid_ca_is_reported_with_its_dates(
    subject: Subject, authority: CertificateAuthority
) -> None:
    authority.write_bundle()

    found = by_name(setup.check_authority(subject))

    assert {each.level for each in found.values()} == {Level.OK}
    assert f"{authority.describe().not_after:%Y-%m-%d}" in found["CA"].what
    assert "every host" in found["CA valid for"].what
    assert "contains the system's roots and the CA" in found["CA bundle"].what


def test_a_ca_that_ends_soon_is_a_warning(
    subject: Subject, authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = authority.describe().not_after - datetime.now(UTC)
    monkeypatch.setattr(setup, "_SOON", end + timedelta(days=1))

    found = by_name(setup.check_authority(subject))["CA"]

    assert (found.level, found.fix) == (Level.WARNING, "claude-proxy ca rotate")


def test_a_ca_that_is_bound_to_hosts_is_compared_with_the_allowlist(subject: Subject) -> None:
    rotate(subject.settings.confdir, constrain=["one.example"])
    lacking = by_name(setup.check_authority(subject))["CA valid for"]
    rotate(subject.settings.confdir, constrain=["one.example", "two.example", "x.example", "y.z"])
    enough = by_name(setup.check_authority(subject))["CA valid for"]

    assert (lacking.level, lacking.fix) == (
        Level.WARNING,
        "claude-proxy ca rotate --constrain",
    )
    assert "two.example" in lacking.what
    assert enough.level is Level.OK
    assert "and 1 more" in enough.what


def test_a_bundle_without_the_ca_or_with_old_roots_is_a_warning(
    subject: Subject, authority: CertificateAuthority
) -> None:
    authority.bundle_path.write_text("")
    without = by_name(setup.check_authority(subject))["CA bundle"]
    authority.bundle_path.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    old = by_name(setup.check_authority(subject))["CA bundle"]

    assert (without.level, old.level) == (Level.WARNING, Level.WARNING)
    assert "does not contain the CA" in without.what
    assert "older" in old.what


def test_a_system_that_trusts_the_ca_is_reported(
    subject: Subject, authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "system_roots", lambda: authority.certificate_path)

    assert "trusts it" in by_name(setup.check_authority(subject))["CA in system"].what


@pytest.mark.parametrize(
    ("variables", "level", "expected"),
    [
        ({}, Level.OK, "do not name the proxy"),
        (LEADING, Level.WARNING, "no CA"),
        (LEADING | {"SSL_CERT_FILE": "/nonexistent"}, Level.WARNING, "SSL_CERT_FILE"),
        (LEADING | {"SSL_CERT_FILE": "{certificate}"}, Level.OK, "1 variables"),
    ],
)
def test_the_variables_of_the_shell_are_checked(
    subject: Subject,
    authority: CertificateAuthority,
    variables: dict[str, str],
    level: Level,
    expected: str,
) -> None:
    filled = {
        name: value.replace("{certificate}", str(authority.certificate_path))
        for name, value in variables.items()
    }

    found = by_name(setup.check_authority(Subject(subject.settings, filled, "linux")))

    assert found["CA in shell"].level is level
    assert expected in found["CA in shell"].what


def test_a_missing_audit_log_before_the_first_start_is_ok(subject: Subject) -> None:
    [found] = setup.check_audit(subject)

    assert found.level is Level.OK
    assert not subject.settings.statedir.exists()


def test_an_audit_log_is_reported_with_its_last_entry(subject: Subject) -> None:
    path = database_in(subject.settings.statedir)
    before = datetime.now().astimezone()
    with closing(AuditStore(path)) as store:
        [empty] = setup.check_audit(subject)
        store.record(Notice(0, "run-start", "x"))

    [found] = setup.check_audit(subject)

    assert "empty" in empty.what
    months = {f"{moment:%Y-%m-}" for moment in (before, datetime.now().astimezone())}
    assert any(f"last entry {month}" in found.what for month in months)


def test_an_invalid_audit_log_is_an_error(subject: Subject) -> None:
    path = database_in(subject.settings.statedir)
    path.parent.mkdir()
    path.write_text("this is no database, and long enough to be read as one " * 40)
    path.chmod(0o600)

    [found] = guarded("audit log", lambda: setup.check_audit(subject))

    assert found.level is Level.ERROR


@pytest.mark.parametrize(
    ("free", "level"), [(1 << 40, Level.OK), (1 << 29, Level.WARNING), (1 << 20, Level.ERROR)]
)
def test_low_disk_space_is_reported_before_it_causes_denials(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, free: int, level: Level
) -> None:
    usage = namedtuple("usage", "free")  # noqa: PYI024 - as `shutil` has it
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(free))

    [found] = setup.check_disk(subject)

    assert found.level is level
    assert (found.fix is None) == (level is Level.OK)


def test_the_nearest_directory_of_a_path_is_found(tmp_path: Path) -> None:
    assert setup.nearest(tmp_path / "a" / "b") == tmp_path
    assert setup.nearest(tmp_path) == tmp_path
