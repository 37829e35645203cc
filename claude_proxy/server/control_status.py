"""Status of a running proxy: policy and version, listeners, open connections, memory.

Secrets stay outside: it names hosts, ports and runs, and never a path, a query, a header or a
value.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from claude_proxy.config.settings import Settings
from claude_proxy.control.running_policy import version_of
from claude_proxy.proxy.connection import ClientConnection, Services
from claude_proxy.server.prepared import Prepared
from claude_proxy.server.reload import Reloader

_MOST_TUNNELS = 500  # that are named
_STATM = Path("/proc/self/statm")


def status_of(prepared: Prepared, services: Services, reloader: Reloader) -> dict[str, Any]:
    """Return the status of this worker, as JSON has it."""
    settings, policy = prepared.settings, reloader.loaded.policy
    gateway = settings.gateway
    tunnels, more = tunnels_of(_target_of(one) for one in list(services.connections))
    return {
        "worker": prepared.slot.number,
        "process": os.getpid(),
        "time": time.time(),
        "policy": {
            "name": _policy_name(settings),
            "file": None if settings.policy is not None else str(settings.allowlist),
            "version": version_of(policy),
            "rules": policy.rules_count,
            "rejected": reloader.is_rejected,
        },
        "listeners": [
            {"name": one.name, "address": one.url, "gateway": one.gateway}
            for one in prepared.listening
        ],
        "upstream": None if gateway is None else str(gateway.upstream),
        "connections": len(services.connections),
        "tunnels": tunnels,
        "tunnels_not_listed": more,
        "memory": _memory(),
    }


def _policy_name(settings: Settings) -> str:
    return settings.policy if settings.policy is not None else settings.allowlist.name


type _Tunnel = tuple[str | None, str]  # run and target


def tunnels_of(found: Iterable[_Tunnel | None]) -> tuple[list[Mapping[str, Any]], int]:
    """Return the open tunnels by run and target, the busiest first, and how many are left out."""
    counts = Counter(key for key in found if key is not None)
    listed = counts.most_common(_MOST_TUNNELS)
    named: list[Mapping[str, Any]] = [
        {"run": run, "target": target, "count": count} for (run, target), count in listed
    ]
    return named, sum(counts.values()) - sum(count for _, count in listed)


def _target_of(connection: ClientConnection) -> _Tunnel | None:
    session = connection.session
    if session.target is None or connection.is_ending:
        return None
    return session.client_info.run, str(session.target)


def _memory() -> int | None:
    """Return the bytes of memory that this process has resident; None if that is not known."""
    try:
        return int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
