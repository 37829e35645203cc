"""Containers that run and have lost their proxy, as their engine says.

An engine is asked only where containers are kept whose proxy does not run.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from claude_proxy.cli.running import RunWithoutProxy
from claude_proxy.control.client import Proxy
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import store

_ANSWER_S = 5.0


def without_proxy(
    statedir: Path, known: Sequence[Proxy], others: Sequence[RunWithoutProxy]
) -> list[str]:
    """Return the names of containers that run without a proxy, which have no network."""
    served = {one.facts.run for one in known} | {one.name for one in others}
    silent = [one for one in store.load_all(statedir) if one.name not in served]
    if not silent:
        return []
    from claude_proxy.sandbox.container.engine import Engine  # noqa: PLC0415 - few have one
    from claude_proxy.sandbox.container.plan.model import NAME_LABEL  # noqa: PLC0415 - as above

    running: set[str] = set()
    for kind in {one.engine for one in silent}:
        with contextlib.suppress(ClaudeProxyError):
            words = ("ps", "--filter", f"label={NAME_LABEL}", "--format", "{{.Names}}")
            said = Engine.find(kind, os.environ).call(*words, timeout_s=_ANSWER_S)
            running |= set(said.decode(errors="replace").split())
    return [one.name for one in silent if one.name in running]
