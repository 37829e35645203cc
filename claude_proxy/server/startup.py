"""Looks at what a start needs and makes it ready: roots, descriptors, the audit store.

Law 11: what was asked for and is not to be had stops the start, with an error that says so.
"""

import contextlib
import os
import resource
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import certifi
from cryptography import x509

from claude_proxy.audit.database import database_in
from claude_proxy.audit.learn import Learner
from claude_proxy.audit.sinks import ConsoleSink, Descriptor, JsonlSink, Sink
from claude_proxy.audit.store import AuditStore
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ConfigError

# What a connection needs: the client's socket and, while it is busy, one upstream's.
_DESCRIPTORS_PER_CONNECTION = 2
_DESCRIPTORS_BESIDE = 96


def open_store(settings: Settings) -> AuditStore:
    """Open the audit log with the sinks that were asked for."""
    sinks: list[Sink] = [
        ConsoleSink(
            Descriptor(sys.stdout.fileno()),
            verbosity=settings.verbosity,
            log_format=settings.log_format,
        )
    ]
    if settings.jsonl is not None:
        sinks.append(JsonlSink.at(settings.jsonl))
    if settings.learn is not None:
        sinks.append(Learner(*settings.learn))
    return AuditStore(
        database_in(settings.statedir),
        retention_days=settings.audit_days,
        max_bytes=settings.audit_bytes,
        sinks=sinks,
        audit_failure=settings.audit_failure,
    )


def upstream_roots(settings: Settings) -> str | None:
    """Return the file of roots that upstreams are verified by; None: the usual ones."""
    extra = settings.upstream_ca
    if extra is None:
        return None
    try:
        added = extra.read_bytes()
        usual = Path(certifi.where()).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the upstream CA cannot be read: {(error.strerror or '').lower()}",
            where=str(extra),
            fix="name a readable PEM file with --upstream-ca",
        ) from error
    try:
        # Else each connection would fail by itself, at run time and without a word why.
        x509.load_pem_x509_certificates(added)
    except ValueError as error:
        raise ConfigError(
            "the upstream CA holds no certificate that can be read",
            where=str(extra),
            fix="give a file in PEM form, with BEGIN CERTIFICATE",
        ) from error
    # The directory is the owner's alone (it was checked when the CA was loaded).
    # Named by what is in it: another proxy beside this one may trust other roots.
    content = usual + b"\n" + added
    merged = settings.place_of_ca / f"upstream-roots-{sha256(content).hexdigest()[:16]}.pem"
    partial = merged.with_name(f".{merged.name}.{os.getpid()}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123 - the mode is the point
            file.write(content)
        partial.replace(merged)
    except OSError as error:
        raise ConfigError(
            f"the upstream roots cannot be written: {(error.strerror or '').lower()}",
            where=str(merged),
            fix="make room, or make the directory writable for its owner",
        ) from error
    return str(merged)


def share_of_worker(settings: Settings) -> Settings:
    """Return the settings of one worker: connections are shared out, all else is the same."""
    share = -(-settings.limits.connections // settings.workers)
    return replace(settings, limits=replace(settings.limits, connections=share))


def keep_names_whole() -> None:
    """Have the system's resolver look names up as they are, below no search domain (law 6).

    What was judged is the name as written; with a search domain, one that does not exist would be
    looked for as another name, and the address of that one dialled. A final dot would do the
    same, but glibc then no longer looks into /etc/hosts.
    """
    os.putenv("LOCALDOMAIN", "")  # for the C library alone, which is who reads it


def fit_descriptors(settings: Settings) -> tuple[Settings, str | None]:
    """Raise the limit of open files as far as it goes; take fewer connections if it must be.

    Returns the settings that fit, and what to tell the owner if they are less than was asked.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.limits.connections * _DESCRIPTORS_PER_CONNECTION + _DESCRIPTORS_BESIDE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        goal = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
            soft = goal
    fitting = (soft - _DESCRIPTORS_BESIDE) // _DESCRIPTORS_PER_CONNECTION
    if soft == resource.RLIM_INFINITY or fitting >= settings.limits.connections:
        return settings, None
    limits = replace(settings.limits, connections=max(1, fitting))
    remark = (
        f"only {limits.connections} connections at once: a process may open {soft} files "
        "(ulimit -n)"
    )
    return replace(settings, limits=limits), remark
