"""The sockets of a run are in its own network namespace, and relays lead from them to its proxy."""

import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from claude_proxy.config.settings import Settings
from claude_proxy.sandbox import run_network
from claude_proxy.sandbox.plan.model import Profile, SandboxSpec
from claude_proxy.sandbox.run_spec import RunSpec

SETTINGS = Settings(Path("/conf/allowlist.yaml"), Path("/conf"), Path("/state"))
RUN = RunSpec(SandboxSpec(("true",), Path("/project"), Profile("shell")), SETTINGS)


def made(ports: Sequence[int], datagrams: Sequence[int]) -> list[socket.socket]:
    """Make sockets without a namespace; the ports are for those who enter one."""
    assert [*ports, *datagrams] == [3128, 1080, 53, 53]
    kinds = [*(socket.SOCK_STREAM for _ in ports), *(socket.SOCK_DGRAM for _ in datagrams)]
    return [socket.socket(socket.AF_INET, kind) for kind in kinds]


def test_there_is_a_socket_for_http_for_socks_and_for_name_lookups() -> None:
    with ExitStack() as closing:
        found = run_network.sockets_in(os.getpid(), RUN, closing, make=made)

        assert len(found.proxy) == 2
        assert found.lookups is not None
        assert [sock.type for sock in found.lookups] == [socket.SOCK_DGRAM, socket.SOCK_STREAM]
        assert (found.gateway, found.fake, found.tunnels) == ([], None, ())
    assert found.proxy[0].fileno() == -1
