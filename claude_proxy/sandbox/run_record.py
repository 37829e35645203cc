"""Record of a run: its start and its end in the audit log.

Recorded or denied: a run that cannot be recorded does not start, unless it is to go on without.
"""

import contextlib

from claude_proxy.config.settings import AuditFailure, RunIdentity, Settings
from claude_proxy.errors import AuditError
from claude_proxy.events import Notice


def record_start(settings: Settings, run: RunIdentity) -> None:
    """Record the start of a run whose proxy does not."""
    record_or_deny(settings, Notice(0, "run-start", run.start_text, run=run.name))


def record_or_deny(settings: Settings, *notices: Notice) -> None:
    """Add notices to the audit log; AuditError if that fails and the run must not go on without."""
    try:
        record(settings, *notices)
    except AuditError:
        if settings.audit_failure is AuditFailure.DENY:
            raise


def load() -> None:
    """Import what a record needs, where there is time for it."""
    from claude_proxy.audit import database, store  # noqa: F401, PLC0415 - SQLite


def record(settings: Settings, *notices: Notice) -> None:
    """Add notices to the audit log; AuditError if that fails."""
    from claude_proxy.audit.database import database_in  # noqa: PLC0415 - SQLite, after bwrap
    from claude_proxy.audit.store import AuditStore  # noqa: PLC0415 - SQLite, after bwrap

    with contextlib.closing(
        AuditStore(
            database_in(settings.statedir),
            retention_days=settings.audit_days,
            max_bytes=settings.audit_bytes,
        )
    ) as store:
        for notice in notices:
            store.record(notice)
