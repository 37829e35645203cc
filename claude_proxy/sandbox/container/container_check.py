"""Check of a running container's network: its own, with only loopback and the proxy.

Where this user may enter its namespaces, the check is made from there; elsewhere in a second
container that joins the network of the first. Law kept: fail closed: what could not be seen is
an error.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import netns, self_check
from claude_proxy.sandbox.container import enter, second_container
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.plan.model import ContainerPlan
from claude_proxy.sandbox.netns import NetworkProbe
from claude_proxy.sandbox.plan.environment import HTTP_PORT
from claude_proxy.sandbox.self_check import SelfCheck

_LIMIT_S = 120.0
_OWN = "its network is its own, with nothing but loopback"
_FAKE_SEEN = tuple(([enter.INTERFACE, "lo"], routes) for routes in (1, 2))  # and multicast
_FAKE = "its network is its own, with nothing but loopback and the fake addresses"


def checks_from_outside(
    pid: int, allowed: str, denied: str, *, transparent: bool = False
) -> Iterator[SelfCheck]:
    """Yield the checks, made in the namespace of the container's first process.

    netns.EntryError if this user may not enter it.
    """
    probe = netns.probe_network(pid, HTTP_PORT, allowed, denied)
    try:
        enter.check_network(pid, transparent=transparent)
    except ClaudeProxyError as error:
        yield SelfCheck(False, error.what)
    else:
        yield SelfCheck(True, _FAKE if transparent else _OWN)
    yield from self_check.checks(probe, HTTP_PORT, allowed, denied)


def checks_from_beside(  # noqa: PLR0913 - the container, and what is tried
    plan: ContainerPlan,
    engine: Engine,
    statedir: Path,
    allowed: str,
    denied: str,
    *,
    transparent: bool = False,
) -> Iterator[SelfCheck]:
    """Yield the checks, made in a second container; ClaudeProxyError if it cannot be."""
    words = (str(HTTP_PORT), allowed, denied)
    said = second_container.call(
        plan, engine, statedir, "network_probe", *words, timeout_s=_LIMIT_S
    )
    try:
        found = dict(json.loads(said))
        seen = (sorted(found["interfaces"]), found["routes"])
        alone = seen == (["lo"], 0) or (transparent and seen in _FAKE_SEEN)
        own = found["namespace"] != os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116 - of no path's file
        probe = NetworkProbe(found["direct"], found["allowed"], found["denied"])
    except (ValueError, KeyError, TypeError) as error:
        raise ClaudeProxyError(
            "the container's network was not probed: the probe said nothing",
            where=str(engine.program),
            fix="report it as a bug, with `claude-proxy doctor`",
        ) from error
    more = "it has the host's network" if not own else "its network has more than loopback"
    expected = _FAKE if transparent else _OWN
    yield SelfCheck(own and alone, expected if own and alone else more)
    yield from self_check.checks(probe, HTTP_PORT, allowed, denied)
