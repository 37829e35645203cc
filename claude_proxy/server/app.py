"""The proxy process: everything that may stop a start is checked, then the engine is imported.

Keeps "no quiet downgrade": the allowlist, the CA, the credentials, the audit log, the state
directory and the listeners are checked before the first client is accepted, and every problem stops
the start. mitmproxy takes most of a start and decides nothing about it, so it comes last: what
connects meanwhile waits in the backlog of a listening socket, and is neither answered nor denied.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

from claude_proxy.audit.store import AuditStore
from claude_proxy.config.loaded_policy import Loaded
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ConfigError
from claude_proxy.server import (
    control_door,
    light_imports,
    listening_sockets,
    logs,
    startup,
    workers,
)
from claude_proxy.server.listening_sockets import OpenListener, remove_files
from claude_proxy.server.prepared import OnApplied, Prepared, ignore_applied
from claude_proxy.server.stop_signals import StopSignals
from claude_proxy.server.vaults import vault_of
from claude_proxy.server.workers import WorkerSlot
from claude_proxy.system import collection, file_permissions, process_memory
from claude_proxy.system.sd_notify import Lifeline, StateNotifier, WorkerNotifier
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.private_files import Folder

if TYPE_CHECKING:
    from types import ModuleType


class _StoppedEarlyError(BaseException):
    """SIGTERM arrived during startup."""


def serve(
    settings: Settings,
    *,
    loaded: Loaded | None = None,
    lifeline: Lifeline | None = None,
    on_applied: OnApplied = ignore_applied,
) -> int:
    """Run the proxy until SIGINT or SIGTERM; return the exit code. ConfigError: it cannot start.

    `loaded` is the policy of the settings, if it has been read already. `on_applied` is called, off
    the event loop, whenever another policy has taken effect.
    """
    logs.configure(settings.verbosity, settings.log_format, tracebacks=settings.tracebacks)
    # Ignored until there is something to reload; the default would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # The default would end the process at once and leave socket files behind.
    signal.signal(signal.SIGTERM, _stop_early)
    try:
        _serve(settings, loaded, lifeline, on_applied)
    except _StoppedEarlyError:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return 0


def _stop_early(_: int, __: object) -> None:
    raise _StoppedEarlyError


def _serve(
    settings: Settings, loaded: Loaded | None, lifeline: Lifeline | None, on_applied: OnApplied
) -> None:
    """Prepare everything, then run one process or several workers."""
    startup.keep_names_whole()
    startup.sweep(settings)
    if loaded is None or loaded.is_stale:
        loaded = _read(settings)
    file_permissions.refuse_replaceable(settings.place_of_ca, "the CA")
    file_permissions.refuse_replaceable(settings.statedir, "the audit log")
    process_memory.no_core_dumps()  # from here on the process holds secrets
    vault = vault_of(settings, loaded.policy)
    authority = _authority_of(settings)
    roots = startup.upstream_roots(settings)
    if settings.workers > 1 and not workers.CAN_SPREAD:
        raise ConfigError(
            "several workers can share a port only on Linux",
            where="--workers",
            fix="leave --workers at 1",
        )
    settings, descriptors_warning = startup.fit_descriptors(startup.share_of_worker(settings))
    announcer = StateNotifier(settings.notify, lifeline)
    until = None if lifeline is None else lifeline.until

    def work(slot: WorkerSlot) -> None:
        news = announcer if slot.report is None else WorkerNotifier(slot.report, speaks=slot.speaks)
        files = listening if slot.report is None else ()  # the parent removes those of its workers
        with contextlib.closing(startup.open_store(settings)) as store:
            signals = StopSignals(
                settings.limits.grace_s,
                early=lambda: _end_early(files),
                overdue=lambda: _end_overdue(store, files, lifeline),
                until=until if slot.parent_gone is None else slot.parent_gone,
                is_worker=slot.parent_gone is not None,
            )
            ends.callback(signals.close)
            signals.begin()
            if slot.report is None:
                startup.record_runs(settings)
                announcer.checked()
            prepared = Prepared(
                settings,
                # What was loaded at the start may allow what has been denied since.
                loaded if slot.replaces is None else _read(settings),
                authority,
                vault,
                roots,
                descriptors_warning,
                listening,
                store,
                slot,
                news,
                signals,
                lifeline is not None,
                on_applied,
                place,
            )
            _engine().run(prepared)
            _tell_unrecorded(store, lifeline)
        if settings.learn is not None and slot.speaks:
            from claude_proxy.audit.learn import usage_line  # noqa: PLC0415 - few proxies learn

            logs.report([usage_line(settings.learn[1], settings.confdir)])
        # After the store has closed, which writes the last lines of the audit log.
        prepared.announce("Stopped.")

    with (
        contextlib.ExitStack() as ends,  # closed last: until then the deadline of a stop counts
        contextlib.closing(vault),
        listening_sockets.opened(settings) as listening,
    ):
        _refuse_loop(settings, listening)
        place = None
        if settings.workers == 1:
            work(WorkerSlot())
            return
        # Opened and closed once before the fork, so that a problem is reported once.
        startup.open_store(settings).close()
        announcer.checked()
        with _stoppable(settings, listening, until):
            _engine().import_http2()  # before the fork too: the workers share the memory
            collection.spare_what_exists()
        place = control_door.claim(settings, listening)
        if place is not None:
            ends.callback(place.remove)
        workers.run(
            settings.workers,
            work,
            announcer,
            grace_s=settings.limits.grace_s,
            until=until,
        )


@contextlib.contextmanager
def _stoppable(
    settings: Settings, listening: tuple[OpenListener, ...], until: int | None
) -> Iterator[None]:
    """Let a signal, or the end of the launcher, end the process during an import."""
    signals = StopSignals(
        settings.limits.grace_s,
        early=lambda: _end_early(listening),
        overdue=lambda: os._exit(0),
        until=until,
    )
    try:
        signals.begin()
        yield
    finally:
        # In this order, so that no signal falls between two handlers.
        signal.signal(signal.SIGTERM, _stop_early)
        signals.close()


def _read(settings: Settings) -> Loaded:
    """Read the policy; ConfigError says what is wrong with it."""
    from claude_proxy.config import policy_files  # noqa: PLC0415 - a launcher may have read it

    return policy_files.load_for(settings)


def _engine() -> "ModuleType":
    """Import the engine, which takes most of a start."""
    with light_imports.applied(), collection.paused():
        from claude_proxy.server import engine  # noqa: PLC0415 - imports mitmproxy

    return engine


def _authority_of(settings: Settings) -> CertificateAuthority | None:
    """Return the CA that signs leaf certificates; None for a gateway alone, which needs none."""
    if settings.listen:
        return CertificateAuthority.load_or_create(settings.place_of_ca)
    if settings.upstream_ca is not None:
        with Folder.make(settings.place_of_ca):
            pass  # create or check the directory: the merged roots are kept there
    return None


def _refuse_loop(settings: Settings, listening: tuple[OpenListener, ...]) -> None:
    gateway = settings.gateway
    if gateway is not None and gateway.upstream.authority in [
        opened.address for opened in listening
    ]:
        raise ConfigError(
            f"the gateway's upstream is this proxy itself: {gateway.upstream}",
            where="--upstream",
            fix="give the URL of the API to forward to",
        )


def _end_early(listening: tuple[OpenListener, ...]) -> None:
    """End the process, which has served nobody yet: nothing but files of sockets is left."""
    with contextlib.suppress(OSError):
        remove_files(listening)
    os._exit(0)


def _tell_unrecorded(store: AuditStore, lifeline: Lifeline | None) -> None:
    """Tell the launcher what the record, which cannot be written, does not show."""
    if lifeline is not None and (unrecorded := store.unrecorded) is not None:
        lifeline.unrecorded(*unrecorded)


def _end_overdue(
    store: AuditStore, listening: tuple[OpenListener, ...], lifeline: Lifeline | None
) -> None:
    """End the process, which has not ended in time; what was gathered for the record is written."""
    _tell_unrecorded(store, lifeline)
    store.rescue()
    with contextlib.suppress(OSError):
        remove_files(listening)
    logs.report(["warning: the proxy did not end in time; what was still open is cut off"])
    os._exit(0)
