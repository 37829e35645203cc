"""Engine of the proxy: mitmproxy's master, gates and listeners, run until a signal stops it.

Keeps "no quiet downgrade" together with `app`, which has checked everything that may stop a start
before this module is imported: mitmproxy takes most of a start. Only this module builds a mitmproxy
master.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvloop
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer
from mitmproxy.tools.dump import DumpMaster

from claude_proxy.config.settings import Settings, UpstreamProxy
from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import AuditError
from claude_proxy.events import Notice
from claude_proxy.policy.host_services import NAME as HOST_SERVICES
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.connection import Services, connection_numbers
from claude_proxy.proxy.dialer import Dialer
from claude_proxy.proxy.layers.protocol_detection import ProtocolDetection
from claude_proxy.proxy.layers.session import Session
from claude_proxy.proxy.listeners import Listener, Listeners
from claude_proxy.proxy.resolver import SystemResolver
from claude_proxy.proxy.shares import MEMORY_LIMIT
from claude_proxy.proxy.upstream_hints import UpstreamHints
from claude_proxy.proxy.upstream_tls import UpstreamTls
from claude_proxy.proxy.warm_upstreams import WarmUpstreams
from claude_proxy.server import banner, startup
from claude_proxy.server.ca_watch import CaWatch
from claude_proxy.server.control_door import ControlDoor, open_door
from claude_proxy.server.gates import Gates, limits_of
from claude_proxy.server.grant_watch import GrantWatch
from claude_proxy.server.lazy_questions import LazyQuestions
from claude_proxy.server.listening_sockets import OpenListener, remove_files
from claude_proxy.server.prepared import Prepared
from claude_proxy.server.reload import Reloader
from claude_proxy.server.stop_signals import StopSignals
from claude_proxy.system import collection, own_addresses
from claude_proxy.system.malloc_trim import MemoryTrimmer, keep_buffers
from claude_proxy.system.runs import proves_run
from claude_proxy.trust.leaf_contexts import LeafContexts
from claude_proxy.trust.roots import added_roots

if TYPE_CHECKING:
    from claude_proxy.server.control_server import ControlServer
    from claude_proxy.server.owner_answers import OwnerAnswers

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


def run(prepared: Prepared) -> None:
    """Run the proxy until a signal stops it."""
    keep_buffers()
    if not prepared.of_run:
        import_http2()
    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        # Closed here too: a worker exits without unwinding, and a reload may be waiting for a
        # credential command.
        contextlib.closing(prepared.vault),
    ):
        runner.run(_run(prepared))


def import_http2() -> None:
    """Import HTTP/2 now, and not while clients wait; a run may have none that speaks it."""
    from claude_proxy.proxy.layers import http2  # noqa: F401, PLC0415


def _listeners(prepared: Prepared, services: Services, gates: Gates) -> list[Listener]:
    """Return the listeners with this worker's sockets."""
    return [_listener(prepared, opened, services, gates) for opened in prepared.listening]


def _listener(
    prepared: Prepared, opened: OpenListener, services: Services, gates: Gates
) -> Listener:
    settings = prepared.settings
    listener = Listener(
        opened.name,
        opened.socket_of(prepared.slot.number),
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
    from claude_proxy.proxy.gateway.layer import (  # noqa: PLC0415 - few proxies have one
        UNKNOWN_CALLER,
        gateway_layer,
    )
    from claude_proxy.proxy.gateway.state import gateway_state  # noqa: PLC0415 - as above

    token = None if opened.address is None else gateway.token
    state, dialer = gateway_state(gateway, prepared.store), services.dialer

    def top_layer(context: Context, session: Session) -> Layer:
        return gateway_layer(context, session, dialer, state, token)

    own = replace(
        services,
        gate=gate,
        limits=limits_of(gateway, services.limits),
        top_layer=top_layer,
    )
    return replace(listener, credentials=None, services=own, refusal=UNKNOWN_CALLER)


def _corporate_proxy(settings: Settings) -> UpstreamProxy | None:
    """Return the upstream proxy; what is on this machine bypasses it.

    That is a gateway's plain-HTTP upstream, and the services that a run was given.
    """
    proxy, gateway = settings.upstream_proxy, settings.gateway
    if proxy is None:
        return None
    here = [HOST_SERVICES] if settings.host_ports else []
    if gateway is not None and gateway.upstream.scheme is Scheme.HTTP:
        here.append(gateway.upstream.authority.host)
    return replace(proxy, exceptions=(*proxy.exceptions, *here)) if here else proxy


def _hints(settings: Settings) -> UpstreamHints:
    if settings.upstream_ca is not None:
        return UpstreamHints(settings.unused_proxy_variable)
    return UpstreamHints(settings.unused_proxy_variable, added_roots)


async def _run(prepared: Prepared) -> None:
    """Build the proxy and run it until a signal stops it."""
    settings = prepared.settings
    ca = CaWatch(
        prepared.authority,
        report=prepared.report,
        record=prepared.record,
        replace=not prepared.of_run,
    )
    gates = Gates(settings, prepared.loaded.policy, prepared.store.record, prepared.vault)
    gates.proxy.can_intercept = ca.is_valid
    if prepared.slot.replaces is not None:
        gates.prepare(prepared.loaded.policy)()  # it may name other credentials than at the start
    dialer = Dialer(
        SystemResolver(),
        pinned=dict(settings.resolve),
        upstream_proxy=_corporate_proxy(settings),
        own=tuple(opened.address for opened in prepared.listening if opened.address is not None),
        timeout_s=settings.limits.connect_timeout_s,
    )

    def top_layer(context: Context, session: Session) -> ProtocolDetection:
        return ProtocolDetection(context, session, dialer)

    options = Options()
    services = Services(
        gate=gates.proxy,
        dialer=dialer,
        limits=settings.limits,
        options=options,
        top_layer=top_layer,
        record_query=settings.record_query,
        hints=_hints(settings),
        leaf_contexts=LeafContexts(prepared.authority),
        upstream_tls=UpstreamTls(prepared.roots, startup.restorer_of(prepared.roots)),
        owns=own_addresses.is_known_to_be_own,
        # Not the path of a list: a client need not learn of files outside its sandbox.
        answer_wait_s=settings.ask_timeout_s,
        list_options=() if settings.policy is None else settings.list_options[:2],
        proves_run=_proof_of_runs(settings),
        numbers=connection_numbers(prepared.slot.number, settings.workers),
    )
    _keep_warm(services, dialer, settings)
    listeners = Listeners(_listeners(prepared, services, gates), services, prepared.record)
    master = ProxyMaster(options, listeners)
    reloader = Reloader(
        settings,
        prepared.loaded,
        gates,
        services.connections,
        record=prepared.record,
        announce=prepared.announce,
        loud=prepared.slot.speaks,
        news=prepared.news,
        on_applied=prepared.on_applied,
        close_warm=lambda: _follow_policy(services),
    )
    grants = _grants(prepared, services, gates)
    stop = asyncio.Event()
    prepared.signals.start(asyncio.get_running_loop(), reloader.request, stop.set)
    running = asyncio.create_task(master.run())
    tasks = _periodic(prepared, services, reloader, ca, grants)
    names = ", ".join(opened.name for opened in prepared.listening)
    door: ControlDoor | None = None
    try:
        await listeners.accepting()
        door = open_door(prepared, lambda: _control(prepared, services, gates, reloader, grants))
        collection.spare_what_exists()
        if prepared.slot.replaces is None:
            prepared.news.ready()
            services.upstream_tls.prepare()  # while nobody waits for it
            _announce_start(prepared)
            prepared.record(Notice(0, "start", f"listening on {names}"))
        else:
            text = f"{prepared.slot.replaces}; process {os.getpid()} replaces it"
            with contextlib.suppress(AuditError):  # it shows at the next decision
                prepared.store.record(Notice(0, "worker-replaced", text))
        await stop.wait()
        prepared.news.stopping()
        prepared.announce("Stopping: no new connections; open ones may finish.")
        if prepared.slot.report is None:
            remove_files(prepared.listening)
        await _wind_down(services, listeners, settings.limits.grace_s, prepared.signals)
    finally:
        _close(door, grants)
        for task in tasks:
            task.cancel()
        for connection in list(services.connections):
            connection.drop()
        master.shutdown()  # type: ignore[no-untyped-call]
        await running
        prepared.record(Notice(0, "stop", f"no longer listening on {names}"))


def _keep_warm(services: Services, dialer: Dialer, settings: Settings) -> None:
    """Let connections be kept ready, unless the owner does not want any."""
    if settings.warm_upstreams:
        services.warm = WarmUpstreams(
            dialer,
            services.shares,
            services.upstream_tls,
            settings.limits,
            processes=settings.workers,
        )


def _grants(prepared: Prepared, services: Services, gates: Gates) -> GrantWatch:
    """Return the watch of the grants, which has looked once: no client is served before."""
    watch = GrantWatch(prepared, services, gates)
    watch.look()
    services.asking = _questions(prepared, watch)
    return watch


def _close(door: ControlDoor | None, grants: GrantWatch) -> None:
    if door is not None:
        door.close()
    grants.close()


def _control(
    prepared: Prepared,
    services: Services,
    gates: Gates,
    reloader: Reloader,
    grants: GrantWatch,
) -> "ControlServer":
    """Return what answers the owner's questions, imported when there is the first."""
    from claude_proxy.server import (  # noqa: PLC0415 - most are never asked
        control_operations,
        grant_operations,
        question_operations,
    )

    engine = control_operations.Engine(prepared, services, gates, reloader)
    server = control_operations.server_of(engine)
    grant_operations.add_to(server, engine, grants)
    if isinstance(services.asking, LazyQuestions):
        question_operations.add_to(server, engine, services.asking)
    return server


def _questions(prepared: Prepared, grants: GrantWatch) -> LazyQuestions:
    """Return the questions to the owner; most proxies ask none."""

    def make() -> "OwnerAnswers":
        from claude_proxy.server.answer_grants import MakeGrants  # noqa: PLC0415 - few ask
        from claude_proxy.server.owner_answers import OwnerAnswers  # noqa: PLC0415 - as above

        return OwnerAnswers(prepared, MakeGrants(prepared.settings, grants.refresh))

    return LazyQuestions(make)


def _follow_policy(services: Services) -> None:
    """Let go what was opened by the policy before, and judge again what waits for an answer."""
    _sweep_warm(services)
    if services.asking is not None:
        services.asking.ask_again()


def _proof_of_runs(settings: Settings) -> Callable[[str, str], bool]:
    """Return whether a token proves that its sender is the relay of the run with a name."""
    base = settings.runs
    return lambda name, token: base is not None and proves_run(base, name, token)


def _periodic(
    prepared: Prepared,
    services: Services,
    reloader: Reloader,
    ca: CaWatch,
    grants: GrantWatch,
) -> list[asyncio.Task[None]]:
    crowd, workers = MemoryTrimmer(), prepared.settings.workers
    return [
        asyncio.create_task(_every(_SWEEP_S, lambda: _sweep(services, workers))),
        asyncio.create_task(_every(_SWEEP_S, lambda: crowd.look(len(services.connections)))),
        asyncio.create_task(_every(_SWEEP_S, ca.look)),
        asyncio.create_task(_every(_SWEEP_S, grants.look)),
        asyncio.create_task(_every(_FLUSH_S, prepared.store.flush)),
        asyncio.create_task(reloader.watch()),
    ]


async def _wind_down(
    services: Services, listeners: Listeners, grace_s: float, signals: StopSignals
) -> None:
    """Stop accepting, close idle connections, and wait up to `grace_s` seconds for the rest."""
    listeners.close()
    if services.asking is not None:
        services.asking.close()
    if services.warm is not None:
        services.warm.close()
    loop = asyncio.get_running_loop()
    give_up = loop.time() + grace_s
    while signals.orders == 1:
        now = loop.time()
        # All of them, as each closes itself once it is idle.
        running = [found.shut(now) for found in list(services.connections)]
        if not any(running) or now > give_up:
            return
        await asyncio.sleep(_WIND_DOWN_S)


async def _every(pause_s: float, do: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(pause_s)
        try:
            do()
        except Exception:  # if the timer died, every time limit would silently stop working
            logger.exception("a periodic task failed")


def _sweep(services: Services, workers: int) -> None:
    now = asyncio.get_running_loop().time()
    for connection in list(services.connections):
        connection.sweep(now)
    services.shares.relieve_memory(MEMORY_LIMIT // workers)
    _sweep_warm(services)


def _sweep_warm(services: Services) -> None:
    if services.warm is not None:
        services.warm.sweep()


def _announce_start(prepared: Prepared) -> None:
    if not prepared.slot.speaks:
        return
    policy = prepared.loaded.policy
    if prepared.descriptors_warning is not None:
        logger.warning("%s", prepared.descriptors_warning)
    banner.warn(prepared.settings, policy, prepared.authority, prepared.listening)
    lines = banner.lines_of(prepared.settings, policy, prepared.authority, prepared.listening)
    prepared.announce("\n".join(lines))
