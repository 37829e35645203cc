"""Puts the proxy together from its settings and runs it; the only place that builds a master.

Everything that can be wrong is looked at before the first client is let in, and said at once:
the allowlist, the CA, the state directory, the port (law 11: no start with less than was asked).
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.tools.dump import DumpMaster

from claude_proxy.audit.database import database_in
from claude_proxy.audit.store import AuditStore
from claude_proxy.config import policy_files
from claude_proxy.config.settings import (
    AuditFailure,
    Learn,
    LogFormat,
    Settings,
    UpstreamProxy,
    Verbosity,
)
from claude_proxy.errors import AuditError, ConfigError
from claude_proxy.events import Notice
from claude_proxy.policy import unbound_hosts
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.connection import Hook, Services
from claude_proxy.proxy.dialer import Dialer, SystemResolver
from claude_proxy.proxy.gateway import banner
from claude_proxy.proxy.gateway.layer import UNKNOWN_CALLER, GatewayFront
from claude_proxy.proxy.gateway.state import state_of
from claude_proxy.proxy.hooks.http2_streams import Http2StreamHooks
from claude_proxy.proxy.hooks.tls import TlsCertificates
from claude_proxy.proxy.layers.protocol_detection import ProtocolDetection
from claude_proxy.proxy.layers.session import Session
from claude_proxy.proxy.listeners import Listener, Listeners
from claude_proxy.server import listening_sockets, logs, startup, workers
from claude_proxy.server.gates import Judges, limits_of, vault_of
from claude_proxy.server.reload import Reloader
from claude_proxy.system import file_permissions, process_memory
from claude_proxy.system.malloc_trim import Crowd
from claude_proxy.system.sd_notify import Announcer, Lifeline, News, WorkerNews
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.private_files import Folder
from claude_proxy.vault.vault import Vault

logger = logging.getLogger(__name__)

_OTHERS_DENIED = "All other hosts are denied"
_AND = "\n                        "  # the banner's further addresses, each below the one before
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
    loaded: policy_files.Loaded
    authority: CertificateAuthority | None  # a gateway alone needs none
    vault: Vault
    roots: str | None
    remark: str | None
    doors: tuple[listening_sockets.Opened, ...]
    store: AuditStore
    place: workers.Place
    news: News
    until: int | None  # ends when the proxy is to stop

    def listeners(self, services: Services, judges: Judges) -> list[Listener]:
        """Return the listeners with the sockets that this process has of them."""
        return [self._listener(door, services, judges) for door in self.doors]

    def _listener(
        self, door: listening_sockets.Opened, services: Services, judges: Judges
    ) -> Listener:
        settings = self.settings
        listener = Listener(
            door.name,
            door.socket_of(self.place.number),
            clients=settings.clients,
            uids=door.uids,
            # The kernel tells who uses a Unix socket; on TCP it takes a password.
            credentials=None if door.address is None else settings.credentials,
            entered=door.remove if door.once else None,
        )
        gateway, gate = settings.gateway, judges.gateway
        if not door.gateway or gateway is None or gate is None:
            return listener
        token = None if door.address is None else gateway.token
        state, dialer = state_of(gateway, self.store), services.dialer

        def top_layer(context: Context, session: Session) -> GatewayFront:
            return GatewayFront(context, session, dialer, state, token)

        own = replace(
            services,
            gate=gate,
            limits=limits_of(gateway, services.limits),
            top_layer=top_layer,
        )
        return replace(listener, credentials=None, services=own, stranger=UNKNOWN_CALLER)

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


class _StoppedEarlyError(BaseException):
    """SIGTERM came while the proxy was being put together."""


def serve(settings: Settings, *, lifeline: Lifeline | None = None) -> int:
    """Run the proxy until SIGINT or SIGTERM; return the exit code. ConfigError: it cannot start."""
    logs.configure(settings.verbosity, settings.log_format)
    # Until there is something to reload; by itself the signal would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # By itself it would end the process where it stands, and leave socket files behind.
    signal.signal(signal.SIGTERM, _stop_early)
    try:
        _serve(settings, lifeline)
    except _StoppedEarlyError:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return 0


def _stop_early(_: int, __: object) -> None:
    raise _StoppedEarlyError


def _serve(settings: Settings, lifeline: Lifeline | None) -> None:
    """Make everything ready, and have one process or several work with it."""
    startup.keep_names_whole()
    loaded = _policy_of(settings)
    file_permissions.refuse_replaceable(settings.place_of_ca, "the CA")
    file_permissions.refuse_replaceable(settings.statedir, "the audit log")
    process_memory.no_core_dumps()  # from here on there are secrets in it
    vault = vault_of(settings, loaded.policy)
    authority = _authority_of(settings)
    roots = startup.upstream_roots(settings)
    if settings.workers > 1 and not workers.CAN_SPREAD:
        raise ConfigError(
            "several workers share a port on Linux alone",
            where="--workers",
            fix="leave --workers at 1",
        )
    settings, remark = startup.fit_descriptors(startup.share_of_worker(settings))
    announcer = Announcer(settings.notify, lifeline)
    until = None if lifeline is None else lifeline.until

    def work(place: workers.Place) -> None:
        news = announcer if place.report is None else WorkerNews(place.report, speaks=place.speaks)
        with (
            contextlib.closing(startup.open_store(settings)) as store,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            parts = _Parts(
                settings, loaded, authority, vault, roots, remark, doors, store, place, news, until
            )
            # Here, as a worker comes back to nobody, and a reload may be waiting for a command.
            with contextlib.closing(vault):
                runner.run(_run(parts))
        # Only now: the last lines of the audit are written as it closes.
        parts.say("Stopped.")

    with contextlib.closing(vault), listening_sockets.opened(settings) as doors:
        _refuse_loop(settings, doors)
        if settings.workers == 1:
            work(workers.Place())
            return
        # Opened and closed once before the fork: what is wrong with it is said once.
        startup.open_store(settings).close()
        workers.run(
            settings.workers,
            work,
            announcer,
            forked=lambda: _close(doors),
            until=until,
        )


def _policy_of(settings: Settings) -> policy_files.Loaded:
    return policy_files.load_for(settings)


def _authority_of(settings: Settings) -> CertificateAuthority | None:
    """Return the CA that clients' TLS is opened by; a gateway alone opens nobody's."""
    if settings.listen:
        return CertificateAuthority.load_or_create(settings.place_of_ca)
    if settings.upstream_ca is not None:
        with Folder.make(settings.place_of_ca):
            pass  # it is made, or checked: the roots are kept there
    return None


def _refuse_loop(settings: Settings, doors: tuple[listening_sockets.Opened, ...]) -> None:
    gateway = settings.gateway
    if gateway is not None and gateway.upstream.authority in [door.address for door in doors]:
        raise ConfigError(
            f"the gateway's upstream is this proxy itself: {gateway.upstream}",
            where="--upstream",
            fix="name the API that it is to forward to",
        )


def _corporate_proxy(settings: Settings) -> UpstreamProxy | None:
    """Return the proxy that others are reached by; an upstream on this machine is none of them."""
    proxy, gateway = settings.upstream_proxy, settings.gateway
    if proxy is None or gateway is None or gateway.upstream.scheme is not Scheme.HTTP:
        return proxy
    return replace(proxy, exceptions=(*proxy.exceptions, gateway.upstream.authority.host))


async def _run(parts: _Parts) -> None:
    """Build the proxy and let it work until a signal ends it."""
    stop = _stop_on_signals(parts)
    settings = parts.settings
    judges = Judges(settings, parts.loaded.policy, parts.store.record, parts.vault)
    dialer = Dialer(
        SystemResolver(),
        pinned=dict(settings.resolve),
        upstream_proxy=_corporate_proxy(settings),
        own=tuple(door.address for door in parts.doors if door.address is not None),
        timeout_s=settings.limits.connect_timeout_s,
    )
    certificates, streams = TlsCertificates(parts.authority), Http2StreamHooks(judges.proxy)

    def top_layer(context: Context, session: Session) -> ProtocolDetection:
        return ProtocolDetection(context, session, dialer)

    options = Options(ssl_verify_upstream_trusted_ca=parts.roots)
    services = Services(
        gate=judges.proxy,
        dialer=dialer,
        limits=settings.limits,
        options=options,
        hooks=_hooks(certificates, streams),
        top_layer=top_layer,
        record_query=settings.record_query,
    )
    listeners = Listeners(parts.listeners(services, judges), services, parts.tell)
    options.update(mode=listeners.modes)
    master = ProxyMaster(options, listeners, certificates, streams)
    # Not an argument of Options: the options of an addon exist only once it is loaded.
    options.update(connection_strategy="lazy")
    reloader = Reloader(
        settings,
        parts.loaded,
        judges,
        services.connections,
        tell=parts.tell,
        say=parts.say,
        loud=parts.place.speaks,
    )
    _reload_on_signal(reloader, parts.news, stop)
    running = asyncio.create_task(master.run())
    tasks = _periodic(parts, services, reloader)
    names = ", ".join(door.name for door in parts.doors)
    try:
        await listeners.accepting()
        parts.news.ready()
        if parts.place.speaks:
            _warn(parts)
            _banner(parts)
        parts.tell(Notice(0, "start", f"listening on {names}"))
        await stop.wait()
        parts.news.stopping()
        parts.say("Stopping: no new connections; running ones may end.")
        if parts.place.report is None:
            _remove_files(parts.doors)
        await _wind_down(services, listeners, settings.limits.grace_s, stop)
    finally:
        for task in tasks:
            task.cancel()
        for connection in list(services.connections):
            connection.abort()
        master.shutdown()  # type: ignore[no-untyped-call]
        await running
        parts.tell(Notice(0, "stop", f"no longer listening on {names}"))


def _close(doors: tuple[listening_sockets.Opened, ...]) -> None:
    for door in doors:
        door.close()


def _remove_files(doors: tuple[listening_sockets.Opened, ...]) -> None:
    """Take the sockets' names away: at once, so that the next proxy can have them."""
    for door in doors:
        door.remove()


def _periodic(parts: _Parts, services: Services, reloader: Reloader) -> list[asyncio.Task[None]]:
    crowd = Crowd()
    return [
        asyncio.create_task(_every(_SWEEP_S, lambda: _sweep(services))),
        asyncio.create_task(_every(_SWEEP_S, lambda: crowd.look(len(services.connections)))),
        asyncio.create_task(_every(_FLUSH_S, parts.store.flush)),
        asyncio.create_task(reloader.watch()),
    ]


def _hooks(certificates: TlsCertificates, streams: Http2StreamHooks) -> dict[str, tuple[Hook, ...]]:
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


def _stop_on_signals(parts: _Parts) -> asyncio.Event:
    """Return what is set as soon as the proxy is to stop."""
    loop, stop, place = asyncio.get_running_loop(), asyncio.Event(), parts.place
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if place.parent_gone is None:
        loop.add_signal_handler(signal.SIGINT, stop.set)
        ends = parts.until
    else:
        ends = place.parent_gone  # who sees to the rest
    if ends is not None:
        loop.add_reader(ends, _stop_with_parent, loop, ends, stop)
    return stop


def _reload_on_signal(reloader: Reloader, news: News, stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    has_terminal = os.isatty(0)

    async def reload() -> None:
        news.reloading()
        try:
            await reloader.reload()
        finally:
            news.reloaded()

    def reload_soon() -> None:
        if has_terminal and not os.isatty(0):
            stop.set()  # the terminal was closed, which is told by the same signal
            return
        task = loop.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload_soon)


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


def _warn(parts: _Parts) -> None:
    """Say what the owner may not have meant, though it was asked for."""
    settings, policy = parts.settings, parts.loaded.policy
    if settings.audit_failure is AuditFailure.ALLOW:
        logger.warning("decisions that cannot be recorded are allowed (--audit-failure allow)")
    if any(door.beyond_loopback for door in parts.doors):
        networks = ", ".join(map(str, settings.clients))
        logger.warning("listening beyond loopback; clients of %s are served", networks)
    if parts.remark is not None:
        logger.warning("%s", parts.remark)
    authority = parts.authority
    if authority is not None and (outside := authority.outside(policy.hosts())):
        logger.warning(
            "the CA's name constraints leave out %d allowed hosts, among them %s; "
            "fix: claude-proxy ca rotate --constrain",
            len(outside),
            outside[0],
        )
    if settings.listen and (words := unbound_hosts.words_about(policy)) is not None:
        logger.warning("%s; fix: %s", *words)
    if settings.learn is not None:
        _warn_of_learning(*settings.learn)
    if policy.allows_by_default and settings.upstream_proxy is not None:
        logger.warning(
            "every host is allowed, and the upstream proxy resolves the names: "
            "names that lead to private addresses are not kept out"
        )


def _banner(parts: _Parts) -> None:
    settings, policy, authority = parts.settings, parts.loaded.policy, parts.authority
    rules = "1 rule" if policy.rules_count == 1 else f"{policy.rules_count} rules"
    source = (
        f"allowlist:      {settings.allowlist} ({rules})"
        if settings.policy is None
        else f"policy:         {settings.policy} ({rules})"
    )
    others = "All other hosts are allowed" if policy.allows_by_default else _OTHERS_DENIED
    urls = [door.url for door in parts.doors if not door.gateway]
    lines = []
    if settings.gateway is not None:
        own = [door.url for door in parts.doors if door.gateway]
        lines += banner.lines_of(settings.gateway, own, policy)
    if urls and authority is not None:
        lines.append(f"claude-proxy listens on {_AND.join(urls)}")
        lines.append(f"  CA certificate: {authority.certificate_path}")
    lines += [f"  {source}", f"  audit log:      {database_in(settings.statedir)}"]
    lines.append(f"{others}. Press Ctrl+C to stop." if urls else "Press Ctrl+C to stop.")
    parts.say("\n".join(lines))


def _warn_of_learning(learn: Learn, file: Path) -> None:
    what = (
        f"hosts that are denied are added to {file}"
        if learn is Learn.DENIALS
        else "THIS PROXY LETS EVERYTHING THROUGH that no deny rule covers, and adds each host to "
        f"{file}; stop it as soon as you have seen what you wanted to see"
    )
    # Not as a warning of the log, which --quiet would swallow.
    logs.report([f"warning: learning: {what}"])
