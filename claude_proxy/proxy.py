"""Puts the proxy together from its settings and runs it; the only place that builds a master.

Everything that can be wrong is looked at before the first client is let in, and said at once:
the allowlist, the CA, the state directory, the port (law 11: no start with less than was asked).
"""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import certifi
import uvloop
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.tools.dump import DumpMaster

from claude_proxy import logs, policyfile
from claude_proxy.addons.streams import Streams
from claude_proxy.addons.tls import Certificates
from claude_proxy.audit import AuditStore, ConsoleSink, Descriptor, JsonlSink, Sink, database_in
from claude_proxy.authority import Authority
from claude_proxy.ca import CertificateAuthority
from claude_proxy.connection import Hook, Services
from claude_proxy.dialer import Dialer, SystemResolver
from claude_proxy.errors import AuditError, ConfigError
from claude_proxy.events import Notice
from claude_proxy.gate import Gate
from claude_proxy.layers.front import Front
from claude_proxy.layers.signals import Session
from claude_proxy.listeners import Listener, Listeners, bind
from claude_proxy.policy import Policy
from claude_proxy.settings import AuditFailure, LogFormat, Settings, Verbosity

logger = logging.getLogger(__name__)

_LISTENER = "tcp"
_SWEEP_S = 1.0
_FLUSH_S = 0.2
# What a connection needs: the client's socket and, while it is busy, one upstream's.
_DESCRIPTORS_PER_CONNECTION = 2
_DESCRIPTORS_BESIDE = 96
_DESCRIPTORS_WANTED = 65_536


class ProxyMaster(DumpMaster):
    """mitmproxy's command-line master, carrying only the addons that this job needs.

    `DumpMaster` would load thirty-one (scripts, replay, the onboarding site, an options file):
    each a way in, and each asked at every hook.
    """

    def __init__(self, options: Options, *addons: object) -> None:
        Master.__init__(self, options)
        self.addons.add(*addons)


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


@dataclass(slots=True)
class _Running:
    """The parts of a running proxy that more than one of its tasks needs."""

    settings: Settings
    path: Path
    loaded: policyfile.Loaded
    gate: Gate
    store: AuditStore
    services: Services
    rejected: policyfile.Fingerprint | None = None


def serve(settings: Settings) -> int:
    """Run the proxy until SIGINT or SIGTERM; return the exit code. ConfigError: it cannot start."""
    logs.configure(settings.verbosity, settings.log_format)
    path = settings.allowlist
    if path is None:
        raise ConfigError("no allowlist is named", mend="name one with --allowlist")
    loaded = policyfile.load(path)
    authority = CertificateAuthority.load_or_create(settings.confdir)
    trusted = _upstream_roots(settings)
    settings, remark = _fit_descriptors(settings)
    sock = bind(settings.host, settings.port)
    address = Authority.of(*sock.getsockname()[:2])
    with contextlib.closing(_open_store(settings)) as store:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(
                _run(settings, path, loaded, authority, store, sock, address, trusted, remark)
            )
    return 0


async def _run(  # noqa: PLR0913
    settings: Settings,
    path: Path,
    loaded: policyfile.Loaded,
    authority: CertificateAuthority,
    store: AuditStore,
    sock: socket.socket,
    address: Authority,
    trusted: str | None,
    remark: str | None,
) -> None:
    gate = Gate(loaded.policy, store.record, audit_failure=settings.audit_failure)
    resolver = SystemResolver()
    dialer = Dialer(
        resolver,
        pinned=dict(settings.resolve),
        upstream_proxy=settings.upstream_proxy,
        own=(address,),
        timeout_s=settings.limits.connect_timeout_s,
    )
    options = Options(ssl_verify_upstream_trusted_ca=trusted, mode=[f"claude:{_LISTENER}"])
    certificates, streams = Certificates(authority), Streams(gate)

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
    listener = Listener(_LISTENER, sock, settings.clients)
    listeners = Listeners([listener], services, lambda notice: _note(store, notice))
    master = ProxyMaster(options, listeners, certificates, streams)
    # Named only now: the options of an addon exist once it is loaded.
    options.update(connection_strategy="lazy")
    running = _Running(settings, path, loaded, gate, store, services)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: _reload_soon(running))
    _note(store, Notice(0, "start", f"listening on {address}"))
    tasks = [
        asyncio.create_task(_every(_SWEEP_S, lambda: _sweep(running))),
        asyncio.create_task(_every(_FLUSH_S, store.flush)),
        asyncio.create_task(_watch(running)),
    ]
    master_task = asyncio.create_task(master.run())
    await asyncio.sleep(0)
    _banner(settings, path, loaded.policy, authority, address, remark)
    try:
        await stop.wait()
        _say(settings, "\nStopping: no new connections; running ones may end.")
        await _wind_down(services, listeners, sock, settings.limits.grace_s, stop)
    finally:
        for task in tasks:
            task.cancel()
        for connection in list(services.connections):
            connection.abort()
        master.shutdown()
        await master_task
        resolver.close()
        _note(store, Notice(0, "stop", f"no longer listening on {address}"))
    _say(settings, "Stopped.")


async def _wind_down(
    services: Services,
    listeners: Listeners,
    sock: socket.socket,
    grace_s: float,
    stop: asyncio.Event,
) -> None:
    """Stop accepting, close what is idle, and wait for the rest, at most `grace_s` seconds."""
    for server in list(listeners.servers):
        await server.stop()
    sock.close()
    stop.clear()  # a second signal ends the waiting
    for connection in list(services.connections):
        connection.shut()

    async def ended() -> None:
        while services.connections and not stop.is_set():
            await asyncio.sleep(0.05)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            await ended()


async def _every(pause_s: float, do: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(pause_s)
        try:
            do()
        except Exception as error:  # noqa: BLE001 - a timer that dies would end all limits unnoticed
            logger.error("a periodic task failed (%s)", type(error).__name__)
            logger.debug("the fault", exc_info=error)


def _sweep(running: _Running) -> None:
    now = asyncio.get_running_loop().time()
    for connection in list(running.services.connections):
        connection.sweep(now)


# --- the policy, reloaded


async def _watch(running: _Running) -> None:
    """Reload the allowlist whenever its file has changed."""
    while True:
        await asyncio.sleep(_SWEEP_S)
        known = running.rejected or running.loaded.fingerprint
        if policyfile.has_changed(running.path, known):
            await _reload(running)


def _reload_soon(running: _Running) -> None:
    task = asyncio.get_running_loop().create_task(_reload(running))
    task.add_done_callback(lambda done: done.exception())


async def _reload(running: _Running) -> None:
    loop = asyncio.get_running_loop()
    try:
        loaded = await loop.run_in_executor(None, policyfile.load, running.path)
    except ConfigError as error:
        fingerprint = policyfile.fingerprint(running.path)
        if running.rejected is not None and fingerprint == running.rejected:
            return
        running.rejected = fingerprint
        logs.report(["the allowlist was rejected; the last good one stays", *error.lines()])
        _note(running.store, Notice(0, "policy-rejected", error.what))
        return
    added, removed = running.loaded.policy.diff(loaded.policy)
    running.loaded, running.rejected = loaded, None
    running.gate.policy = loaded.policy
    closed = sum(connection.withdraw() for connection in list(running.services.connections))
    text = _change(added, removed)
    if closed:
        text += f"; {closed} open tunnels closed"
    _say(running.settings, f"Allowlist applied: {text}")
    _note(running.store, Notice(0, "policy-applied", text))


def _change(added: tuple[str, ...], removed: tuple[str, ...]) -> str:
    parts = [f"+ {name}" for name in added[:10]] + [f"- {name}" for name in removed[:10]]
    if not parts:
        return "no rule changed"
    more = len(added) + len(removed) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more else "")


# --- what the start looks at


def _open_store(settings: Settings) -> AuditStore:
    sinks: list[Sink] = [
        ConsoleSink(
            Descriptor(sys.stdout.fileno()),
            verbosity=settings.verbosity,
            log_format=settings.log_format,
        )
    ]
    if settings.jsonl is not None:
        sinks.append(JsonlSink.at(settings.jsonl))
    return AuditStore(
        database_in(settings.statedir),
        retention_days=settings.audit_days,
        max_bytes=settings.audit_bytes,
        sinks=sinks,
        audit_failure=settings.audit_failure,
    )


def _upstream_roots(settings: Settings) -> str | None:
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
            mend="name a readable PEM file with --upstream-ca",
        ) from error
    if b"-----BEGIN CERTIFICATE-----" not in added:
        raise ConfigError(
            "the upstream CA holds no certificate",
            where=str(extra),
            mend="give a file in PEM form, with BEGIN CERTIFICATE",
        )
    merged = settings.confdir / "upstream-roots.pem"
    partial = merged.with_name(f".{merged.name}.{os.getpid()}")
    partial.write_bytes(usual + b"\n" + added)
    partial.chmod(0o600)
    partial.replace(merged)
    return str(merged)


def _fit_descriptors(settings: Settings) -> tuple[Settings, str | None]:
    """Raise the limit of open files as far as it goes; take fewer connections if it must be."""
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
        f"only {limits.connections} connections at once: this process may open {soft} files "
        "(ulimit -n)"
    )
    return replace(settings, limits=limits), remark


# --- what is said


def _banner(  # noqa: PLR0913
    settings: Settings,
    path: Path,
    policy: Policy,
    authority: CertificateAuthority,
    address: Authority,
    remark: str | None,
) -> None:
    if settings.audit_failure is AuditFailure.ALLOW:
        logger.warning("decisions that cannot be recorded are allowed (--audit-failure allow)")
    if not Authority.of(settings.host, 1).address.is_loopback:
        nets = ", ".join(map(str, settings.clients))
        logger.warning("listening beyond loopback; clients of %s are served", nets)
    if remark is not None:
        logger.warning("%s", remark)
    outside = authority.outside(policy.hosts())
    if outside:
        logger.warning(
            "the CA's name constraints leave out %d allowed hosts, among them %s; "
            "mend: claude-proxy ca rotate --constrain",
            len(outside),
            outside[0],
        )
    _say(
        settings,
        f"claude-proxy listens on http://{address}\n"
        f"  CA certificate: {authority.certificate_path}\n"
        f"  allowlist:      {path} ({policy.rules_count} rules)\n"
        f"  audit log:      {database_in(settings.statedir)}\n"
        "All other hosts are denied. Press Ctrl+C to stop.",
    )


def _say(settings: Settings, text: str) -> None:
    if settings.verbosity is Verbosity.QUIET or settings.log_format is LogFormat.JSON:
        return
    with contextlib.suppress(OSError):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _note(store: AuditStore, notice: Notice) -> None:
    """Record a notice; that it cannot be is said by the next decision."""
    with contextlib.suppress(AuditError):
        store.record(notice)
