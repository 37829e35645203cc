"""Setup checks: directories, allowlist, CA and its trust, audit log, disk space.

They change nothing: no CA is created, none of its files is renewed, no audit log is started.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from claude_proxy.audit.database import database_in
from claude_proxy.audit.queries import AuditReader, Selection
from claude_proxy.config import policy_files
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.finding import Finding, Level, error, ok, warning
from claude_proxy.doctor.listeners import leads_here
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.system import file_permissions
from claude_proxy.trust import client_environment
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.certificates import read_authority
from claude_proxy.trust.private_files import SECRET, Folder
from claude_proxy.trust.published_certificate import AUTHORITY_FILE
from claude_proxy.trust.roots import system_roots
from claude_proxy.wire.authority import Authority

_MIB = 1024**2
_ENOUGH_DISK = 1024 * _MIB
_LITTLE_DISK = 64 * _MIB
_SOON = timedelta(days=30)
_MOST_NAMED = 3
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")
_LARGEST_BUNDLE = 8 * _MIB
_LEAD = 'eval "$(claude-proxy env)"'

# The variables of `claude-proxy env` that name a file of certificates.
_TRUST_VARIABLES = tuple(
    variable.name
    for variable in client_environment.variables(
        Authority.of("localhost", 1), Path("/c"), Path("/b")
    )
    if variable.value in {"/c", "/b"}
)


def check_directories(subject: Subject) -> list[Finding]:
    """Check which users could change the configuration and the state."""
    settings = subject.settings
    apart = settings.cadir is not None  # then nothing is written into confdir
    found = [_directory("confdir", settings.confdir, written=not apart)]
    if settings.cadir is not None:
        found.append(_directory("cadir", settings.cadir))
    return [*found, _directory("statedir", settings.statedir)]


def _directory(name: str, path: Path, *, written: bool = True) -> Finding:
    try:
        found = path.stat()
    except FileNotFoundError:
        if not written:
            return ok(name, f"{path} does not exist")
        return _missing_directory(name, path)
    file_permissions.refuse_writable(path, found, "what is in it")
    file_permissions.refuse_replaceable(path, "what is in it")
    if written and not os.access(path, os.W_OK | os.X_OK):
        return error(name, f"{path} is not writable", f"chmod u+rwx {path}")
    return ok(name, f"{path} (mode {stat.S_IMODE(found.st_mode):04o})")


def _missing_directory(name: str, path: Path) -> Finding:
    above = nearest(path)
    if os.access(above, os.W_OK | os.X_OK):
        return ok(name, f"{path} does not exist yet; the first start creates it")
    fix = f"use another one: --{name}"
    return error(name, f"{path} cannot be created: you may not write to {above}", fix)


def check_allowlist(subject: Subject) -> list[Finding]:
    """Read the allowlist as the proxy does."""
    policy = policy_files.load_for(subject.settings).policy
    if not policy.allow:
        fix = "claude-proxy allow HOST"
        return [warning("allowlist", f"{subject.settings.allowlist} allows nothing", fix)]
    rules = f"{len(policy.allow)} to allow, {len(policy.deny)} to deny"
    return [ok("allowlist", f"{subject.settings.allowlist}: {rules}")]


def read_pair(confdir: Path) -> CertificateAuthority:
    """Read the CA without writing anything; ClaudeProxyError if there is no usable one."""
    where = confdir / AUTHORITY_FILE
    data = None
    if folder := Folder.find(confdir):
        with folder:
            data = folder.read(AUTHORITY_FILE, SECRET)
    if data is None:
        raise NoAuthorityError(
            "there is no CA yet", where=str(where), fix="create it: claude-proxy ca bundle"
        )
    return CertificateAuthority(confdir, read_authority(data, str(where), datetime.now(UTC)))


class NoAuthorityError(ClaudeProxyError):
    """There is no CA yet, as before the first start."""


def check_authority(subject: Subject) -> list[Finding]:
    """Check the CA: its files, its dates, its hosts, and which programs trust it."""
    try:
        authority = read_pair(subject.settings.place_of_ca)
    except NoAuthorityError as missing:
        return [ok("CA", f"{missing.where} does not exist yet; the first start creates it")]
    return [
        _dates(authority),
        _constraints(authority, subject),
        _bundle(authority),
        _system_trust(authority),
        *_shell_trust(authority, subject),
    ]


def _dates(authority: CertificateAuthority) -> Finding:
    facts = authority.describe()
    left = facts.not_after - datetime.now(UTC)
    summary = f"{authority.name}, {facts.key_type}, valid until {facts.not_after:%Y-%m-%d}"
    if left < _SOON:
        return warning("CA", f"{summary}: {left.days} days", "claude-proxy ca rotate")
    return ok("CA", summary)


def _constraints(authority: CertificateAuthority, subject: Subject) -> Finding:
    name = "CA valid for"
    permitted = authority.describe().permitted
    if not permitted:
        return ok(
            name, "every host (claude-proxy ca rotate --constrain limits it to the allowlist)"
        )
    outside = authority.outside(policy_files.load_for(subject.settings).policy.hosts())
    if not outside:
        return ok(name, f"only the hosts of the allowlist ({_some(permitted)})")
    what = f"not for {_some(outside)}, which the allowlist allows"
    return warning(name, what, "claude-proxy ca rotate --constrain")


def _bundle(authority: CertificateAuthority) -> Finding:
    path = authority.bundle_path
    name = "CA bundle"
    fix = "claude-proxy ca bundle"
    try:
        held = path.read_bytes()
    except FileNotFoundError:
        return ok(name, f"{path} does not exist yet; `{fix}` and `claude-proxy env` create it")
    if not _holds(held, authority):
        return warning(name, f"{path} does not contain the CA", fix)
    if held != authority.bundle_pem():
        return warning(name, f"{path} is older than the system's roots", fix)
    return ok(name, f"{path} contains the system's roots and the CA")


def _system_trust(authority: CertificateAuthority) -> Finding:
    name = "CA in system"
    store = system_roots()
    if _file_holds(store, authority):
        return ok(name, f"{store} contains it, so every program of this machine trusts it")
    return ok(name, f"{store} does not contain it; `claude-proxy env` tells programs where it is")


def _shell_trust(authority: CertificateAuthority, subject: Subject) -> Iterator[Finding]:
    name = "CA in shell"
    proxied = leads_here(subject)
    lacking = []
    for variable in _TRUST_VARIABLES:
        value = subject.environ.get(variable)
        if value and not _file_holds(Path(value), authority):
            lacking.append(variable)
    trusting = [each for each in _TRUST_VARIABLES if subject.environ.get(each)]
    if not proxied:
        yield ok(name, f"this shell's variables do not name the proxy ({_LEAD} sets them)")
    elif not trusting:
        yield warning(name, "this shell's variables name the proxy, but no CA", _LEAD)
    elif lacking:
        yield warning(name, f"no CA in the files that {_some(lacking)} name", _LEAD)
    else:
        yield ok(name, f"{len(trusting)} variables of this shell name the CA")


def _file_holds(path: Path, authority: CertificateAuthority) -> bool:
    try:
        with path.open("rb") as file:
            return _holds(file.read(_LARGEST_BUNDLE), authority)
    except OSError:
        return False


def _holds(bundle: bytes, authority: CertificateAuthority) -> bool:
    wanted = b"".join(authority.certificate.public_bytes(Encoding.PEM).split())
    return any(b"".join(block.split()) == wanted for block in _BLOCK.findall(bundle))


def check_audit(subject: Subject) -> list[Finding]:
    """Check that the audit log can be read, and report its size."""
    path = database_in(subject.settings.statedir)
    if not path.exists():
        return [ok("audit log", f"{path} does not exist yet; the first start creates it")]
    file_permissions.refuse_writable(path, path.stat(), "the record")
    with AuditReader(path) as reader:
        newest = reader.newest(Selection(), 1)
    beside = (path, path.with_name(f"{path.name}-wal"))
    size = sum(each.stat().st_size for each in beside if each.exists())
    summary = f"{path}, {size / _MIB:.1f} MiB"
    if not newest:
        return [ok("audit log", f"{summary}, empty")]
    moment = datetime.fromtimestamp(newest[0].time_ns // 1_000_000_000, UTC).astimezone()
    return [ok("audit log", f"{summary}, last entry {moment:%Y-%m-%d %H:%M}")]


def check_disk(subject: Subject) -> list[Finding]:
    """Check that there is room for the audit log: a decision that is not recorded is a denial."""
    above = nearest(subject.settings.statedir)
    free = shutil.disk_usage(above).free
    summary = f"{free / _MIB:,.0f} MiB free at {above}"
    fix = "free some space, or use another --statedir"
    if free < _LITTLE_DISK:
        return [Finding("disk space", Level.ERROR, summary, fix)]
    if free < _ENOUGH_DISK:
        return [Finding("disk space", Level.WARNING, summary, fix)]
    return [ok("disk space", summary)]


def nearest(path: Path) -> Path:
    """Return the first directory, from `path` upwards, that exists."""
    return next(each for each in (path, *path.absolute().parents) if each.is_dir())


def _some(names: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return shown if more <= 0 else f"{shown} and {more} more"
