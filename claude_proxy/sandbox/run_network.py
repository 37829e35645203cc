"""Network of a run: the sockets in its namespace, and the relays from them to the run's proxy.

A container and a sandbox of bwrap's have the same. Law kept: nothing but these sockets leads out.
"""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox import netns
from claude_proxy.sandbox.helper_processes import (
    FAKE_PORTS,
    FakeNetwork,
    HelperProcess,
    LookupSockets,
    RelayAnnouncement,
    RelaySockets,
    start_relay,
)
from claude_proxy.sandbox.lookups import PORT as LOOKUP_PORT
from claude_proxy.sandbox.lookups import LookupChannel
from claude_proxy.sandbox.plan.environment import GATEWAY_PORT, HTTP_PORT, SOCKS_PORT
from claude_proxy.sandbox.relay.relay_target import RelayTarget
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import RunLog
from claude_proxy.sandbox.run_spec import RunSpec

if TYPE_CHECKING:
    from claude_proxy.sandbox.run_ports import RunPorts

type Make = Callable[..., list[socket.socket]]  # of TCP ports, and of UDP ports


@dataclass(frozen=True, slots=True)
class RunSockets:
    """The sockets in the network namespace of process `init`; who makes them closes them."""

    init: int
    proxy: Sequence[socket.socket]  # HTTP and SOCKS
    lookups: tuple[socket.socket, socket.socket] | None = None  # of DNS: UDP and TCP
    gateway: Sequence[socket.socket] = ()
    fake: FakeNetwork | None = None  # for clients that ignore the proxy
    tunnels: Sequence[tuple[socket.socket, str]] = ()  # of --forward, and where each leads


def sockets_in(
    init: int,
    run_spec: RunSpec,
    closing: ExitStack,
    mapped: "RunPorts | None" = None,
    make: Make | None = None,
) -> RunSockets:
    """Return the sockets of a run in the network namespace of `init`; `closing` closes them.

    `mapped` are the ports of --forward; `make` makes the sockets in another way.
    """
    gateway = (GATEWAY_PORT,) if run_spec.settings.gateway else ()
    usual = (HTTP_PORT, SOCKS_PORT, LOOKUP_PORT, *gateway)
    ports = usual if mapped is None else (*usual, *mapped.places)
    *found, datagrams = (make or partial(netns.listeners, init))(ports, (LOOKUP_PORT,))
    for sock in (*found, datagrams):
        closing.enter_context(sock)
    http, socks, lookups, *gateways = found[: len(usual)]
    tunnels = () if mapped is None else mapped.tunnels(found[len(usual) :])
    fake = _fake_network(run_spec, init, closing)
    return RunSockets(init, (http, socks), (datagrams, lookups), gateways, fake, tunnels)


def _fake_network(run_spec: RunSpec, init: int, closing: ExitStack) -> FakeNetwork | None:
    """Give the sandbox fake addresses, for clients that ignore the proxy, if that is wanted."""
    if not run_spec.sandbox.transparent:
        return None
    if not run_spec.announces:
        raise ConfigError(
            "only claude-proxy on this machine can be asked which names are allowed",
            where=f"--transparent on, --proxy {run_spec.join}",
            fix="leave out one of the two; without --proxy the run starts its own",
        )
    namespace, sockets = netns.fake_network(init, FAKE_PORTS)
    names = os.memfd_create("names")
    for descriptor in (namespace, names):
        closing.callback(os.close, descriptor)
    for sock in sockets:
        closing.enter_context(sock)
    return FakeNetwork(namespace, names, dict(zip(FAKE_PORTS, sockets, strict=True)))


def start_relays(  # noqa: PLR0913 - everything that a relay connects
    sockets: RunSockets,
    run_directory: RunDirectory,
    log: RunLog,
    lookups: LookupChannel,
    *,
    upstream: RelayTarget | None = None,
    announced: RelayAnnouncement | None = None,
) -> Iterator[HelperProcess]:
    """Yield the relay to the proxy, and the relay to its gateway if there is one.

    `upstream` is a proxy that the run joins; by default it is the run's own.
    """
    noting = sockets.lookups and LookupSockets(*sockets.lookups, lookups, sockets.init)
    to = upstream or _unix(run_directory.socket_path)
    first = RelaySockets(sockets.proxy, noting, sockets.fake, sockets.tunnels)
    yield start_relay(first, to, run_directory, log, announced)
    if sockets.gateway:
        gateway = _unix(run_directory.gateway_path)
        yield start_relay(RelaySockets(sockets.gateway), gateway, run_directory, log, announced)


def _unix(path: Path) -> RelayTarget:
    return RelayTarget(f"unix:{path}", socket.AF_UNIX, str(path))
