"""Puts the proxy together from its settings and runs it; the only place that builds a master.

Everything that can be wrong is looked at before the first client is let in, and said at once:
the allowlist, the CA, the state directory, the port (law 11: no start with less than was asked).
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

import uvloop
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.tools.dump import DumpMaster

from claude_proxy import logs, policyfile, preflight, workers
from claude_proxy.addons.streams import Streams
from claude_proxy.addons.tls import Certificates
from claude_proxy.audit import AuditStore, database_in
from claude_proxy.authority import Authority
from claude_proxy.ca import CertificateAuthority
from claude_proxy.connection import Hook, Services
from claude_proxy.dialer import Dialer, SystemResolver
from claude_proxy.errors import AuditError, ConfigError
from claude_proxy.events import Notice
from claude_proxy.gate import Gate
from claude_proxy.heap import Crowd
from claude_proxy.layers.front import Front
from claude_proxy.layers.signals import Session
from claude_proxy.listeners import Listener, Listeners, bind_all
from claude_proxy.reload import Reloader
from claude_proxy.settings import AuditFailure, LogFormat, Settings, Verbosity

logger = logging.getLogger(__name__)

_LISTENER = "tcp"
_SWEEP_S = 1.0
_FLUSH_S = 0.2


class ProxyMaster(DumpMaster):
    """mitmproxy's command-line master, carrying only the addons that this job needs.

    `DumpMaster` would load thirty-one (scripts, replay, the onboarding site, an options file):
    each a way in, and each asked at every hook.
    """

    def __init__(self, options: Options, *addons: object) -> None:
        Master.__init__(self, options)
        self.addons.add(*addons)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a start has made ready, before there is an event loop."""

    settings: Settings
    loaded: policyfile.Loaded
    authority: CertificateAuthority
    roots: str | None
    remark: str | None
    socket: socket.socket
    store: AuditStore
    place: workers.Place

    def say(self, text: str) -> None:
        """Print what is true of the whole proxy, once."""
        settings = self.settings
        quiet = settings.verbosity is Verbosity.QUIET or settings.log_format is LogFormat.JSON
        if quiet or not self.place.speaks:
            return
        with contextlib.suppress(OSError):
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def tell(self, notice: Notice) -> None:
        """Record a notice, once; that it cannot be is said by the next decision."""
        if self.place.speaks:
            with contextlib.suppress(AuditError):
                self.store.record(notice)


def serve(settings: Settings) -> int:
    """Run the proxy until SIGINT or SIGTERM; return the exit code. ConfigError: it cannot start."""
    logs.configure(settings.verbosity, settings.log_format)
    # Until there is something to reload; by itself the signal would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    preflight.keep_names_whole()
    loaded = policyfile.load(settings.allowlist)
    policyfile.refuse_replaceable(settings.confdir, "the CA")
    policyfile.refuse_replaceable(settings.statedir, "the audit log")
    authority = CertificateAuthority.load_or_create(settings.confdir)
    roots = preflight.upstream_roots(settings)
    if settings.workers > 1 and not workers.CAN_SPREAD:
        raise ConfigError(
            "several workers share a port on Linux alone",
            where="--workers",
            mend="leave --workers at 1",
        )
    settings, remark = preflight.fit_descriptors(preflight.share_of_worker(settings))
    sockets = bind_all(settings.host, settings.port, settings.workers)

    def work(sock: socket.socket, place: workers.Place) -> None:
        with (
            sock,
            contextlib.closing(preflight.open_store(settings)) as store,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            parts = _Parts(settings, loaded, authority, roots, remark, sock, store, place)
            runner.run(_run(parts))

    if len(sockets) == 1:
        work(sockets[0], workers.Place())
    else:
        # Opened and closed once before the fork: what is wrong with it is said once.
        preflight.open_store(settings).close()
        workers.run(sockets, work)
    return 0


async def _run(parts: _Parts) -> None:
    """Build the proxy and let it work until a signal ends it."""
    settings = parts.settings
    gate = Gate(parts.loaded.policy, parts.store.record, audit_failure=settings.audit_failure)
    address = Authority.of(*parts.socket.getsockname()[:2])
    dialer = Dialer(
        SystemResolver(),
        pinned=dict(settings.resolve),
        upstream_proxy=settings.upstream_proxy,
        own=(address,),
        timeout_s=settings.limits.connect_timeout_s,
    )
    options = Options(ssl_verify_upstream_trusted_ca=parts.roots, mode=[f"claude:{_LISTENER}"])
    certificates, streams = Certificates(parts.authority), Streams(gate)

    def top_layer(context: Context, session: Session) -> Front:
        return Front(context, session, dialer)

    services = Services(
        gate=gate,
        dialer=dialer,
        limits=settings.limits,
        options=options,
        hooks=_hooks(certificates, streams),
        top_layer=top_layer,
        record_query=settings.record_query,
    )
    listener = Listener(_LISTENER, parts.socket, settings.clients)
    listeners = Listeners([listener], services, parts.tell)
    master = ProxyMaster(options, listeners, certificates, streams)
    # Not an argument of Options: the options of an addon exist only once it is loaded.
    options.update(connection_strategy="lazy")
    reloader = Reloader(
        settings, parts.loaded, services, tell=parts.tell, say=parts.say, loud=parts.place.speaks
    )
    stop = _stop_on_signals(reloader, parts.place)
    running = asyncio.create_task(master.run())
    crowd = Crowd()
    tasks = [
        asyncio.create_task(_every(_SWEEP_S, lambda: _sweep(services))),
        asyncio.create_task(_every(_SWEEP_S, lambda: crowd.look(len(services.connections)))),
        asyncio.create_task(_every(_FLUSH_S, parts.store.flush)),
        asyncio.create_task(reloader.watch()),
    ]
    _banner(parts, address)
    parts.tell(Notice(0, "start", f"listening on {address}"))
    try:
        await stop.wait()
        parts.say("Stopping: no new connections; running ones may end.")
        await _wind_down(services, listeners, settings.limits.grace_s, stop)
    finally:
        for task in tasks:
            task.cancel()
        for connection in list(services.connections):
            connection.abort()
        master.shutdown()  # type: ignore[no-untyped-call]
        await running
        parts.tell(Notice(0, "stop", f"no longer listening on {address}"))
    parts.say("Stopped.")


def _hooks(certificates: Certificates, streams: Streams) -> dict[str, tuple[Hook, ...]]:
    """Name every hook that is answered; what mitmproxy's addons would answer besides is not."""
    return {
        "tls_start_client": (certificates.tls_start_client,),
        "tls_start_server": (certificates.tls_start_server,),
        "requestheaders": (streams.requestheaders,),
        "request": (streams.request,),
        "responseheaders": (streams.responseheaders,),
        "response": (streams.response,),
        "error": (streams.error,),
    }


def _stop_on_signals(reloader: Reloader, place: workers.Place) -> asyncio.Event:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()

    has_terminal = os.isatty(0)

    def reload_soon() -> None:
        if has_terminal and not os.isatty(0):
            stop.set()  # the terminal was closed, which is told by the same signal
            return
        task = loop.create_task(reloader.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    if place.parent_gone is None:
        loop.add_signal_handler(signal.SIGINT, stop.set)
    else:
        loop.add_reader(place.parent_gone, _stop_with_parent, loop, place.parent_gone, stop)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload_soon)
    return stop


def _stop_with_parent(
    loop: asyncio.AbstractEventLoop, descriptor: int, stop: asyncio.Event
) -> None:
    loop.remove_reader(descriptor)
    stop.set()


async def _wind_down(
    services: Services, listeners: Listeners, grace_s: float, stop: asyncio.Event
) -> None:
    """Stop accepting, close what is idle, and wait for the rest, at most `grace_s` seconds."""
    for server in list(listeners.servers):
        await server.stop()
    stop.clear()  # a second signal ends the waiting
    for connection in list(services.connections):
        connection.shut()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            while services.connections and not stop.is_set():  # noqa: ASYNC110 - two conditions
                await asyncio.sleep(0.05)


async def _every(pause_s: float, do: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(pause_s)
        try:
            do()
        except Exception:  # a timer that dies would end all limits unnoticed
            logger.exception("a periodic task failed")


def _sweep(services: Services) -> None:
    now = asyncio.get_running_loop().time()
    for connection in list(services.connections):
        connection.sweep(now)


def _banner(parts: _Parts, address: Authority) -> None:
    settings, policy = parts.settings, parts.loaded.policy
    if not parts.place.speaks:
        return
    if settings.audit_failure is AuditFailure.ALLOW:
        logger.warning("decisions that cannot be recorded are allowed (--audit-failure allow)")
    if address.address is None or not address.address.is_loopback:
        networks = ", ".join(map(str, settings.clients))
        logger.warning("listening beyond loopback; clients of %s are served", networks)
    if parts.remark is not None:
        logger.warning("%s", parts.remark)
    if outside := parts.authority.outside(policy.hosts()):
        logger.warning(
            "the CA's name constraints leave out %d allowed hosts, among them %s; "
            "mend: claude-proxy ca rotate --constrain",
            len(outside),
            outside[0],
        )
    rules = "1 rule" if policy.rules_count == 1 else f"{policy.rules_count} rules"
    parts.say(
        f"claude-proxy listens on http://{address}\n"
        f"  CA certificate: {parts.authority.certificate_path}\n"
        f"  allowlist:      {settings.allowlist} ({rules})\n"
        f"  audit log:      {database_in(settings.statedir)}\n"
        "All other hosts are denied. Press Ctrl+C to stop.",
    )
