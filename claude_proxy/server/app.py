"""The proxy process: assembled from its settings, run until a signal stops it.

Keeps "no quiet downgrade": the allowlist, the CA, the state directory and the listeners are checked
before the first client is accepted, and every problem stops the start. Only this module builds a
mitmproxy master.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import uvloop
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer
from mitmproxy.tools.dump import DumpMaster

from claude_proxy.audit.learn import usage_line
from claude_proxy.audit.store import AuditStore
from claude_proxy.config import policy_files
from claude_proxy.config.settings import (
    LogFormat,
    Settings,
    UpstreamProxy,
    Verbosity,
)
from claude_proxy.errors import AuditError, ConfigError
from claude_proxy.events import Notice
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.connection import Hook, Services, connection_numbers
from claude_proxy.proxy.dialer import Dialer
from claude_proxy.proxy.gateway.layer import UNKNOWN_CALLER, gateway_layer
from claude_proxy.proxy.gateway.state import gateway_state
from claude_proxy.proxy.hooks.tls import TlsCertificates
from claude_proxy.proxy.layers.protocol_detection import ProtocolDetection
from claude_proxy.proxy.layers.session import Session
from claude_proxy.proxy.listeners import Listener, Listeners
from claude_proxy.proxy.resolver import SystemResolver
from claude_proxy.proxy.upstream_hints import UpstreamHints
from claude_proxy.server import banner, listening_sockets, logs, startup, workers
from claude_proxy.server.ca_watch import CaWatch
from claude_proxy.server.gates import Gates, limits_of, vault_of
from claude_proxy.server.listening_sockets import OpenListener
from claude_proxy.server.reload import OnApplied, Reloader, ignore_applied
from claude_proxy.server.stop_signals import StopSignals
from claude_proxy.server.workers import WorkerSlot
from claude_proxy.system import file_permissions, own_addresses, process_memory
from claude_proxy.system.malloc_trim import MemoryTrimmer
from claude_proxy.system.runs import proves_run
from claude_proxy.system.sd_notify import Lifeline, StateListener, StateNotifier, WorkerNotifier
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.private_files import Folder
from claude_proxy.trust.roots import added_roots
from claude_proxy.vault.vault import Vault

logger = logging.getLogger(__name__)

_SWEEP_S = 1.0
_FLUSH_S = 0.2
_WIND_DOWN_S = 0.05  # between two looks at which connections have become idle


class ProxyMaster(DumpMaster):
    """mitmproxy's command-line master with only the addons that the proxy needs.

    `DumpMaster` itself loads thirty-one (scripts, replay, the onboarding site, an options file):
    each adds attack surface, and each is called for every hook.
    """

    def __init__(self, options: Options, *addons: object) -> None:
        Master.__init__(self, options)
        self.addons.add(*addons)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What startup has prepared before there is an event loop."""

    settings: Settings
    loaded: policy_files.Loaded
    authority: CertificateAuthority | None  # None: a gateway alone needs no CA
    vault: Vault
    roots: str | None
    descriptors_warning: str | None
    listening: tuple[OpenListener, ...]
    store: AuditStore
    slot: WorkerSlot
    news: StateListener
    signals: StopSignals
    of_run: bool  # a launcher has started it for one run
    on_applied: OnApplied

    def listeners(self, services: Services, gates: Gates) -> list[Listener]:
        """Return the listeners with this worker's sockets."""
        return [self._listener(opened, services, gates) for opened in self.listening]

    def _listener(self, opened: OpenListener, services: Services, gates: Gates) -> Listener:
        settings = self.settings
        listener = Listener(
            opened.name,
            opened.socket_of(self.slot.number),
            clients=settings.clients,
            uids=opened.uids,
            run=opened.run,
            # The kernel identifies the user of a Unix socket; TCP needs a password.
            credentials=None if opened.address is None else settings.credentials,
            on_first_byte=opened.remove if opened.once else None,
        )
        gateway, gate = settings.gateway, gates.gateway
        if not opened.gateway or gateway is None or gate is None:
            return listener
        token = None if opened.address is None else gateway.token
        state, dialer = gateway_state(gateway, self.store), services.dialer

        def top_layer(context: Context, session: Session) -> Layer:
            return gateway_layer(context, session, dialer, state, token)

        own = replace(
            services,
            gate=gate,
            limits=limits_of(gateway, services.limits),
            top_layer=top_layer,
        )
        return replace(listener, credentials=None, services=own, refusal=UNKNOWN_CALLER)

    def announce(self, text: str) -> None:
        """Print a line about the whole proxy, from one worker only."""
        settings = self.settings
        quiet = settings.verbosity is Verbosity.QUIET or settings.log_format is LogFormat.JSON
        if quiet or not self.slot.speaks:
            return
        logs.write(sys.stdout, text + "\n")

    def report(self, lines: list[str]) -> None:
        """Print what is wrong with the whole proxy, from one worker only."""
        if self.slot.speaks:
            logs.report(lines)

    def record(self, notice: Notice) -> None:
        """Record a notice, from one worker only; a failure shows at the next decision."""
        if self.slot.speaks:
            with contextlib.suppress(AuditError):
                self.store.record(notice)


class _StoppedEarlyError(BaseException):
    """SIGTERM arrived during startup."""


def serve(
    settings: Settings,
    *,
    lifeline: Lifeline | None = None,
    on_applied: OnApplied = ignore_applied,
) -> int:
    """Run the proxy until SIGINT or SIGTERM; return the exit code. ConfigError: it cannot start.

    `on_applied` is called, off the event loop, whenever another policy has taken effect.
    """
    logs.configure(settings.verbosity, settings.log_format, tracebacks=settings.tracebacks)
    # Ignored until there is something to reload; the default would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # The default would end the process at once and leave socket files behind.
    signal.signal(signal.SIGTERM, _stop_early)
    try:
        _serve(settings, lifeline, on_applied)
    except _StoppedEarlyError:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return 0


def _stop_early(_: int, __: object) -> None:
    raise _StoppedEarlyError


def _serve(settings: Settings, lifeline: Lifeline | None, on_applied: OnApplied) -> None:
    """Prepare everything, then run one process or several workers."""
    startup.keep_names_whole()
    startup.sweep(settings)
    loaded = policy_files.load_for(settings)
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
        store = startup.open_store(settings)
        signals = StopSignals(
            settings.limits.grace_s,
            lambda: _end_overdue(store, listening if slot.report is None else ()),
            until=until if slot.parent_gone is None else slot.parent_gone,
            is_worker=slot.parent_gone is not None,
        )
        ends.callback(signals.close)
        with (
            contextlib.closing(store),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            parts = _Parts(
                settings,
                # What was loaded at the start may allow what has been denied since.
                loaded if slot.replaces is None else policy_files.load_for(settings),
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
            )
            # Closed here too: a worker exits without unwinding, and a reload may be waiting for a
            # credential command.
            with contextlib.closing(vault):
                runner.run(_run(parts))
        if settings.learn is not None and slot.speaks:
            logs.report([usage_line(settings.learn[1], settings.confdir)])
        # After the store has closed, which writes the last lines of the audit log.
        parts.announce("Stopped.")

    with (
        contextlib.ExitStack() as ends,  # closed last: until then the deadline of a stop counts
        contextlib.closing(vault),
        listening_sockets.opened(settings) as listening,
    ):
        _refuse_loop(settings, listening)
        if settings.workers == 1:
            work(WorkerSlot())
            return
        # Opened and closed once before the fork, so that a problem is reported once.
        startup.open_store(settings).close()
        workers.run(
            settings.workers,
            work,
            announcer,
            grace_s=settings.limits.grace_s,
            until=until,
        )


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


def _corporate_proxy(settings: Settings) -> UpstreamProxy | None:
    """Return the upstream proxy; a gateway's plain-HTTP upstream on this machine bypasses it."""
    proxy, gateway = settings.upstream_proxy, settings.gateway
    if proxy is None or gateway is None or gateway.upstream.scheme is not Scheme.HTTP:
        return proxy
    return replace(proxy, exceptions=(*proxy.exceptions, gateway.upstream.authority.host))


def _hints(settings: Settings) -> UpstreamHints:
    if settings.upstream_ca is not None:
        return UpstreamHints(settings.unused_proxy_variable)
    return UpstreamHints(settings.unused_proxy_variable, added_roots)


async def _run(parts: _Parts) -> None:
    """Build the proxy and run it until a signal stops it."""
    settings = parts.settings
    ca = CaWatch(
        parts.authority, report=parts.report, record=parts.record, replace=not parts.of_run
    )
    gates = Gates(settings, parts.loaded.policy, parts.store.record, parts.vault)
    gates.proxy.can_intercept = ca.is_valid
    if parts.slot.replaces is not None:
        gates.prepare(parts.loaded.policy)()  # it may name other credentials than at the start
    dialer = Dialer(
        SystemResolver(),
        pinned=dict(settings.resolve),
        upstream_proxy=_corporate_proxy(settings),
        own=tuple(opened.address for opened in parts.listening if opened.address is not None),
        timeout_s=settings.limits.connect_timeout_s,
    )
    certificates = TlsCertificates(parts.authority, startup.restorer_of(parts.roots))

    def top_layer(context: Context, session: Session) -> ProtocolDetection:
        return ProtocolDetection(context, session, dialer)

    options = Options(ssl_verify_upstream_trusted_ca=parts.roots)
    services = Services(
        gate=gates.proxy,
        dialer=dialer,
        limits=settings.limits,
        options=options,
        hooks=_hooks(certificates),
        top_layer=top_layer,
        record_query=settings.record_query,
        hints=_hints(settings),
        owns=own_addresses.is_known_to_be_own,
        # Not the path of a list: a client need not learn of files outside its sandbox.
        list_options=() if settings.policy is None else settings.list_options[:2],
        proves_run=_proof_of_runs(settings),
        numbers=connection_numbers(parts.slot.number, settings.workers),
    )
    listeners = Listeners(parts.listeners(services, gates), services, parts.record)
    options.update(mode=listeners.modes)
    master = ProxyMaster(options, listeners, certificates)
    # Not an argument of Options: an addon's options exist only once it is loaded.
    options.update(connection_strategy="lazy")
    reloader = Reloader(
        settings,
        parts.loaded,
        gates,
        services.connections,
        record=parts.record,
        announce=parts.announce,
        loud=parts.slot.speaks,
        news=parts.news,
        on_applied=parts.on_applied,
    )
    parts.signals.start(reloader.request)
    running = asyncio.create_task(master.run())
    tasks = _periodic(parts, services, reloader, ca)
    names = ", ".join(opened.name for opened in parts.listening)
    try:
        await listeners.accepting()
        if parts.slot.replaces is None:
            parts.news.ready()
            _announce_start(parts)
            parts.record(Notice(0, "start", f"listening on {names}"))
        else:
            text = f"{parts.slot.replaces}; process {os.getpid()} replaces it"
            with contextlib.suppress(AuditError):  # it shows at the next decision
                parts.store.record(Notice(0, "worker-replaced", text))
        await parts.signals.stop.wait()
        parts.news.stopping()
        parts.announce("Stopping: no new connections; open ones may finish.")
        if parts.slot.report is None:
            _remove_files(parts.listening)
        await _wind_down(services, listeners, settings.limits.grace_s, parts.signals)
    finally:
        for task in tasks:
            task.cancel()
        for connection in list(services.connections):
            connection.drop()
        master.shutdown()  # type: ignore[no-untyped-call]
        await running
        parts.record(Notice(0, "stop", f"no longer listening on {names}"))


def _proof_of_runs(settings: Settings) -> Callable[[str, str], bool]:
    """Return whether a token proves that its sender is the relay of the run with a name."""
    base = settings.runs
    return lambda name, token: base is not None and proves_run(base, name, token)


def _remove_files(listening: tuple[OpenListener, ...]) -> None:
    """Remove the files of Unix sockets at once, so that the next proxy can use the paths."""
    for opened in listening:
        opened.remove()


def _periodic(
    parts: _Parts, services: Services, reloader: Reloader, ca: CaWatch
) -> list[asyncio.Task[None]]:
    crowd = MemoryTrimmer()
    return [
        asyncio.create_task(_every(_SWEEP_S, lambda: _sweep(services))),
        asyncio.create_task(_every(_SWEEP_S, lambda: crowd.look(len(services.connections)))),
        asyncio.create_task(_every(_SWEEP_S, ca.look)),
        asyncio.create_task(_every(_FLUSH_S, parts.store.flush)),
        asyncio.create_task(reloader.watch()),
    ]


def _hooks(certificates: TlsCertificates) -> dict[str, tuple[Hook, ...]]:
    """Return the handlers of every mitmproxy hook that the proxy answers."""
    return {
        "tls_start_client": (certificates.tls_start_client,),
        "tls_start_server": (certificates.tls_start_server,),
    }


async def _wind_down(
    services: Services, listeners: Listeners, grace_s: float, signals: StopSignals
) -> None:
    """Stop accepting, close idle connections, and wait up to `grace_s` seconds for the rest."""
    for server in list(listeners.servers):
        await server.stop()
    loop = asyncio.get_running_loop()
    give_up = loop.time() + grace_s
    while signals.orders == 1:
        now = loop.time()
        # All of them, as each closes itself once it is idle.
        running = [found.shut(now) for found in list(services.connections)]
        if not any(running) or now > give_up:
            return
        await asyncio.sleep(_WIND_DOWN_S)


def _end_overdue(store: AuditStore, listening: tuple[OpenListener, ...]) -> None:
    """End the process, which has not ended in time; what was gathered for the record is written."""
    store.rescue()
    with contextlib.suppress(OSError):
        _remove_files(listening)
    logs.report(["warning: the proxy did not end in time; what was still open is cut off"])
    os._exit(0)


async def _every(pause_s: float, do: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(pause_s)
        try:
            do()
        except Exception:  # if the timer died, every time limit would silently stop working
            logger.exception("a periodic task failed")


def _sweep(services: Services) -> None:
    now = asyncio.get_running_loop().time()
    for connection in list(services.connections):
        connection.sweep(now)
    services.shares.relieve_memory()


def _announce_start(parts: _Parts) -> None:
    if not parts.slot.speaks:
        return
    policy = parts.loaded.policy
    if parts.descriptors_warning is not None:
        logger.warning("%s", parts.descriptors_warning)
    banner.warn(parts.settings, policy, parts.authority, parts.listening)
    lines = banner.lines_of(parts.settings, policy, parts.authority, parts.listening)
    parts.announce("\n".join(lines))
