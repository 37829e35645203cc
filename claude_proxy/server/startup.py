"""Startup checks and preparation: upstream roots, descriptor limits, the audit store.

Keeps "no quiet downgrade": if something that is configured is unavailable, the start fails.
"""

import contextlib
import os
import resource
import sys
import warnings
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from claude_proxy.audit.database import database_in
from claude_proxy.audit.sinks import ConsoleSink, Descriptor, JsonlSink, Sink
from claude_proxy.audit.store import AuditStore
from claude_proxy.config.file_states import POLICIES, PRESETS
from claude_proxy.config.settings import (
    AuditFailure,
    InheritedListen,
    LogFormat,
    Settings,
    Verbosity,
)
from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import AuditError, ConfigError
from claude_proxy.events import Notice
from claude_proxy.system import file_replacement

# A connection needs the client's socket and, while it is busy, one upstream socket.
_DESCRIPTORS_PER_CONNECTION = 2
_OTHER_DESCRIPTORS = 96


def record_runs(settings: Settings) -> None:
    """Record that the runs start which the listeners are for.

    Recorded or denied: AuditError, so that they do not start, unless they are to go on without.
    """
    named = [one.run for one in settings.listen if isinstance(one, InheritedListen) and one.run]
    runs = [run for run in named if not run.goes_on]
    if not runs:
        return
    try:
        with contextlib.closing(
            AuditStore(
                database_in(settings.statedir),
                retention_days=settings.audit_days,
                max_bytes=settings.audit_bytes,
            )
        ) as store:
            for run in runs:
                store.record(Notice(0, "run-start", run.start_text, run=run.name))
    except AuditError:
        if settings.audit_failure is AuditFailure.DENY:
            raise


def open_store(settings: Settings) -> AuditStore:
    """Open the audit log with the configured sinks."""
    terminal = Descriptor(sys.stdout.fileno())
    sinks: list[Sink] = [
        ConsoleSink(terminal, verbosity=settings.verbosity, log_format=settings.log_format)
    ]
    if settings.log_format is LogFormat.TEXT and settings.verbosity is not Verbosity.QUIET:
        from claude_proxy.audit.denial_notices import DenialNotices  # noqa: PLC0415 - not of a run

        sinks.append(DenialNotices(terminal, settings.list_options))
    if settings.jsonl is not None:
        sinks.append(JsonlSink.at(settings.jsonl))
    if settings.learn is not None:
        from claude_proxy.audit.learn import Learner  # noqa: PLC0415 - few proxies learn

        sinks.append(Learner(*settings.learn))
    return AuditStore(
        database_in(settings.statedir),
        retention_days=settings.audit_days,
        max_bytes=settings.audit_bytes,
        sinks=sinks,
        audit_failure=settings.audit_failure,
    )


def upstream_roots(settings: Settings) -> str | None:
    """Return the file of CA roots used to verify upstreams; None means the default roots."""
    extra = settings.upstream_ca
    if extra is None:
        return None
    import certifi  # noqa: PLC0415 - few proxies have other roots
    from cryptography import x509  # noqa: PLC0415 - as above

    try:
        added = extra.read_bytes()
        default = Path(certifi.where()).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the upstream CA cannot be read: {(error.strerror or '').lower()}",
            where=str(extra),
            fix="name a readable PEM file with --upstream-ca",
        ) from error
    try:
        # Otherwise every connection would fail at run time, without saying why. Old roots in it
        # may break a rule of today, of which cryptography warns; OpenSSL reads them all the same.
        with warnings.catch_warnings(action="ignore"):
            x509.load_pem_x509_certificates(added)
    except ValueError as error:
        raise ConfigError(
            "the upstream CA file contains no readable certificate",
            where=str(extra),
            fix="use a PEM file (it begins with -----BEGIN CERTIFICATE-----)",
        ) from error
    # The directory belongs to the owner alone (checked when the CA was loaded). The file name
    # contains a hash of the content, as another proxy on this machine may trust other roots.
    content = default + b"\n" + added
    merged = settings.place_of_ca / f"upstream-roots-{sha256(content).hexdigest()[:16]}.pem"
    try:
        if not (merged.is_file() and merged.read_bytes() == content):
            file_replacement.replace(merged, content, 0o600)
    except OSError as error:
        raise ConfigError(
            f"the upstream roots cannot be written: {(error.strerror or '').lower()}",
            where=str(merged),
            fix="make room, or make the directory writable for its owner",
        ) from error
    return str(merged)


def restorer_of(roots: str | None) -> Callable[[], None]:
    """Return a function that writes the file of upstream roots again if somebody removed it.

    It is read at each new kind of connection; OSError if it cannot be written.
    """
    if roots is None:
        return lambda: None
    path = Path(roots)
    content = path.read_bytes()

    def restore() -> None:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file_replacement.replace(path, content, 0o600)

    return restore


def sweep(settings: Settings) -> None:
    """Remove what killed processes have left unfinished in the directories of the proxy."""
    own = (settings.confdir / name for name in (POLICIES, PRESETS))
    for directory in {settings.confdir, settings.place_of_ca, settings.statedir, *own}:
        file_replacement.sweep(directory)


def share_of_worker(settings: Settings) -> Settings:
    """Return the settings of one worker, with its share of the connection limit."""
    share = max(1, settings.limits.connections // settings.workers)
    return replace(settings, limits=replace(settings.limits, connections=share))


def keep_names_whole() -> None:
    """Make the system resolver look up names exactly as written, without search domains.

    Keeps "judged is dialled": with a search domain, a name that does not exist would be looked up
    as another name, and that name's address dialled. A trailing dot would prevent this too, but
    glibc then no longer reads /etc/hosts.
    """
    os.putenv("LOCALDOMAIN", "")  # only the C library reads it


def fit_descriptors(settings: Settings) -> tuple[Settings, str | None]:
    """Raise the limit of open files as far as possible; lower the connection limit if it must.

    Return the settings that fit, and a warning for the owner if they are lower than requested.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.limits.connections * _DESCRIPTORS_PER_CONNECTION + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        goal = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
            soft = goal
    fitting = (soft - _OTHER_DESCRIPTORS) // _DESCRIPTORS_PER_CONNECTION
    if soft == resource.RLIM_INFINITY or fitting >= settings.limits.connections:
        return settings, None
    limits = replace(settings.limits, connections=max(1, fitting))
    warning = (
        f"only {limits.connections} connections at once: this process may open {soft} files "
        "(ulimit -n)"
    )
    return replace(settings, limits=limits), warning
