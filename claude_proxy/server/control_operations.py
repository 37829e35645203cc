"""Control operations: the table of what a running proxy answers, one entry for each operation.

A part that has something to say to the owner adds its operations here, and its share of the status.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from claude_proxy.control.protocol import Answer, problem_of
from claude_proxy.control.running_policy import POLICY_OP, source_of, version_of
from claude_proxy.proxy.connection import Services
from claude_proxy.server.change_text import NO_CHANGE
from claude_proxy.server.control_server import Call, ControlServer
from claude_proxy.server.control_status import status_of
from claude_proxy.server.gates import Gates
from claude_proxy.server.prepared import Prepared
from claude_proxy.server.reload import Reloader


@dataclass(frozen=True, slots=True)
class Engine:
    """What the operations are about."""

    prepared: Prepared
    services: Services
    gates: Gates
    reloader: Reloader
    # More keys of the status, each with what returns its value.
    more_status: dict[str, Callable[[], Any]] = field(default_factory=dict)


def server_of(engine: Engine) -> ControlServer:
    """Return a server that answers all operations."""
    server = ControlServer()
    server.add("status", lambda call: _status(engine, call))
    server.add("reload", lambda call: _reload(engine, call))
    server.add(POLICY_OP, lambda call: _policy(engine, call))
    server.add("stop", lambda call: _stop(engine, call))
    return server


async def _status(engine: Engine, _: Call) -> Answer:
    found = status_of(engine.prepared, engine.services, engine.reloader)
    return found | {name: value() for name, value in engine.more_status.items()}


async def _policy(engine: Engine, _: Call) -> Answer:
    """Say from where the policy in force is, and its version."""
    return source_of(engine.reloader.settings, engine.reloader.loaded.policy)


async def _reload(engine: Engine, _: Call) -> Answer:
    """Read the policy again; the answer comes when it is in force in this worker."""
    change = await engine.reloader.apply_now()
    loaded = engine.reloader.loaded
    return {
        "change": change,
        "changed": change != NO_CHANGE,
        "version": version_of(loaded.policy),
        # Of the project's own file, which may only narrow.
        "complaint": None if loaded.complaint is None else problem_of(loaded.complaint),
    }


async def _stop(engine: Engine, _: Call) -> Answer:
    """Stop the whole proxy as a SIGTERM does, once this answer has been sent."""
    is_worker = engine.prepared.slot.parent_gone is not None
    process = os.getppid() if is_worker else os.getpid()
    asyncio.get_running_loop().call_later(0.05, os.kill, process, signal.SIGTERM)
    return {"process": process}
