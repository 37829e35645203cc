"""A start prepares what was configured, or says why it cannot."""

import errno
import os
import resource
import sqlite3
import stat
from base64 import b64encode
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from claude_proxy.audit.database import FILE_NAME, database_in
from claude_proxy.audit.queries import AuditReader
from claude_proxy.config.settings import (
    AuditFailure,
    InheritedListen,
    Limits,
    LogFormat,
    RunIdentity,
    Settings,
    Verbosity,
)
from claude_proxy.errors import AuditError, ConfigError
from claude_proxy.server import startup
from claude_proxy.system import file_replacement
from claude_proxy.trust.certificate_authority import CertificateAuthority
from tests.audit.examples import a_denial


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    confdir, statedir = tmp_path / "conf", tmp_path / "state"
    confdir.mkdir(mode=0o700)
    return Settings(confdir / "allowlist.yaml", confdir, statedir)


def changed(settings: Settings, **values: object) -> Settings:
    fields = {name: getattr(settings, name) for name in Settings.__slots__}
    return Settings(**fields | values)


# --- the audit store


def test_the_store_prints_what_it_records(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    store = startup.open_store(settings)
    store.record(a_denial())
    store.close()

    assert database_in(settings.statedir).exists()
    assert "no-rule" in capfd.readouterr().out


def test_the_store_writes_a_file_of_lines_if_asked(
    settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "audit.jsonl"
    quiet = changed(settings, jsonl=lines, verbosity=Verbosity.QUIET, log_format=LogFormat.JSON)

    store = startup.open_store(quiet)
    store.record(a_denial())
    store.close()

    assert '"no-rule"' in lines.read_text()
    assert capfd.readouterr().out == ""


# --- roots


def test_without_extra_roots_the_default_ones_are_used(settings: Settings) -> None:
    assert startup.upstream_roots(settings) is None


def test_an_extra_root_is_added_to_the_default_ones(settings: Settings) -> None:
    own = CertificateAuthority.load_or_create(settings.confdir).certificate_path

    merged = startup.upstream_roots(changed(settings, upstream_ca=own))

    assert merged is not None
    held = Path(merged).read_bytes()
    assert own.read_bytes() in held
    assert Path(certifi.where()).read_bytes() in held
    assert stat.S_IMODE(Path(merged).stat().st_mode) == 0o600
    assert not list(settings.confdir.glob(".upstream-roots*"))


def test_roots_that_are_there_already_need_no_room(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = CertificateAuthority.load_or_create(settings.confdir).certificate_path
    merged = startup.upstream_roots(changed(settings, upstream_ca=own))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file_replacement, "replace", full)

    assert startup.upstream_roots(changed(settings, upstream_ca=own)) == merged


def test_roots_that_somebody_removed_are_written_again(settings: Settings) -> None:
    own = CertificateAuthority.load_or_create(settings.confdir).certificate_path
    merged = startup.upstream_roots(changed(settings, upstream_ca=own))
    assert merged is not None
    before = Path(merged).read_bytes()
    restore = startup.restorer_of(merged)
    Path(merged).unlink()

    restore()

    assert Path(merged).read_bytes() == before
    startup.restorer_of(None)()


def test_a_start_removes_what_killed_processes_have_left(settings: Settings) -> None:
    left = [
        directory / ".allowlist.yaml.0123.unfinished"
        for directory in (settings.confdir, settings.statedir, settings.confdir / "policies")
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (0, 0))

    startup.sweep(settings)

    assert not any(path.exists() for path in left)


def test_two_proxies_with_extra_roots_do_not_conflict(settings: Settings) -> None:
    own = CertificateAuthority.load_or_create(settings.confdir).certificate_path
    twice = settings.confdir / "twice.pem"
    twice.write_bytes(own.read_bytes() * 2)

    merged = {startup.upstream_roots(changed(settings, upstream_ca=ca)) for ca in (own, twice, own)}

    assert len(merged) == 2


def test_a_root_that_is_not_there_is_a_clear_error(settings: Settings) -> None:
    missing = settings.confdir / "none.pem"

    with pytest.raises(ConfigError) as caught:
        startup.upstream_roots(changed(settings, upstream_ca=missing))

    assert caught.value.what == "the upstream CA cannot be read: no such file or directory"
    assert caught.value.where == str(missing)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "some words",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ],
)
def test_a_root_that_cannot_be_read_stops_the_start(settings: Settings, text: str) -> None:
    """And not only each connection, once there are any."""
    broken = settings.confdir / "broken.pem"
    broken.write_text(text)

    with pytest.raises(ConfigError, match="contains no readable certificate"):
        startup.upstream_roots(changed(settings, upstream_ca=broken))


def test_roots_that_cannot_be_written_stop_the_start(settings: Settings) -> None:
    own = CertificateAuthority.load_or_create(settings.confdir).certificate_path
    elsewhere = settings.confdir / "nowhere"

    with pytest.raises(ConfigError) as caught:
        startup.upstream_roots(changed(settings, upstream_ca=own, confdir=elsewhere))

    assert caught.value.what == "the upstream roots cannot be written: no such file or directory"


# --- descriptors


class Machine:
    """A machine with limits on open files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.soft, self.hard = 1024, 4096
        self.refuses = False
        monkeypatch.setattr(resource, "getrlimit", lambda _: (self.soft, self.hard))
        monkeypatch.setattr(resource, "setrlimit", self._set)

    def _set(self, _: int, limits: tuple[int, int]) -> None:
        if self.refuses:
            raise OSError("not permitted")
        self.soft, self.hard = limits


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def fit(settings: Settings, connections: int) -> tuple[int, str | None]:
    wanted = changed(settings, limits=Limits(connections=connections))
    fitting, remark = startup.fit_descriptors(wanted)
    return fitting.limits.connections, remark


def test_a_limit_that_is_enough_stays(settings: Settings, machine: Machine) -> None:
    assert fit(settings, 100) == (100, None)
    assert machine.soft == 1024


def test_a_low_limit_is_raised_as_far_as_is_needed(settings: Settings, machine: Machine) -> None:
    assert fit(settings, 1000) == (1000, None)
    assert machine.soft == 2096


def test_a_low_hard_limit_lowers_the_connections_with_a_warning(
    settings: Settings, machine: Machine
) -> None:
    assert fit(settings, 4096) == (
        2000,
        "only 2000 connections at once: this process may open 4096 files (ulimit -n)",
    )
    assert machine.soft == 4096


def test_a_limit_that_cannot_be_raised_is_respected(settings: Settings, machine: Machine) -> None:
    machine.refuses = True

    connections, remark = fit(settings, 4096)

    assert connections == 464
    assert remark is not None
    assert "1024 files" in remark


def test_at_least_one_connection_is_served(settings: Settings, machine: Machine) -> None:
    machine.soft = machine.hard = 32

    assert fit(settings, 10)[0] == 1


@pytest.mark.parametrize("soft", [1024, resource.RLIM_INFINITY])
def test_a_machine_without_a_limit_serves_all(
    settings: Settings, machine: Machine, soft: int
) -> None:
    machine.soft, machine.hard = soft, resource.RLIM_INFINITY

    assert fit(settings, 100_000) == (100_000, None)


@pytest.mark.parametrize(("workers", "share"), [(1, 100), (3, 33), (200, 1)])
def test_workers_have_no_more_connections_together_than_are_allowed(
    settings: Settings, workers: int, share: int
) -> None:
    all_of_them = changed(settings, workers=workers, limits=Limits(connections=100))

    assert startup.share_of_worker(all_of_them).limits.connections == share


def test_an_old_root_in_the_upstream_ca_is_taken_without_a_warning(
    settings: Settings, tmp_path: Path
) -> None:
    old = tmp_path / "old.pem"
    old.write_bytes(certificate_with_serial_zero())

    assert startup.upstream_roots(changed(settings, upstream_ca=old)) is not None


def certificate_with_serial_zero() -> bytes:
    """Return a self-signed certificate that RFC 5280 forbids and companies have."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old root")])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start.replace(2040))
    der = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    text = b64encode(der.replace(b"\x02\x01\x01", b"\x02\x01\x00", 1))
    return b"-----BEGIN CERTIFICATE-----\n" + text + b"\n-----END CERTIFICATE-----\n"


RUN = RunIdentity("calm-otter", "claude")


def recorded(statedir: Path) -> list[tuple[str, str]]:
    with AuditReader(statedir / FILE_NAME) as reader:
        return [(one.program, one.name) for one in reader.runs(10)]


def test_a_run_that_a_listener_is_for_is_recorded_once(tmp_path: Path) -> None:
    listen = (InheritedListen(7, "run", RUN), InheritedListen(8, "other"))
    settings = Settings(tmp_path / "a.yaml", tmp_path, tmp_path / "state", listen=listen)

    startup.record_runs(settings)

    assert recorded(tmp_path / "state") == [(RUN.program, RUN.name)]


def test_a_proxy_of_no_run_records_none(tmp_path: Path) -> None:
    startup.record_runs(Settings(tmp_path / "a.yaml", tmp_path, tmp_path / "state"))

    assert not (tmp_path / "state" / FILE_NAME).exists()


@pytest.mark.parametrize("failure", list(AuditFailure))
def test_a_run_that_cannot_be_recorded_starts_only_if_it_may(
    tmp_path: Path, failure: AuditFailure
) -> None:
    listen = (InheritedListen(7, "run", RUN),)
    settings = Settings(
        tmp_path / "a.yaml", tmp_path, tmp_path / "state", listen=listen, audit_failure=failure
    )
    startup.record_runs(settings)
    with closing(sqlite3.connect(tmp_path / "state" / FILE_NAME)) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON notice BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
        database.commit()

    with pytest.raises(AuditError) if failure is AuditFailure.DENY else nullcontext():
        startup.record_runs(settings)
