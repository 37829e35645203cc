"""Least limits of a container, below which no engine starts one; pure.

The runtime's own processes are within the limits until CMD takes their place, so what they need is
the least; the kernel takes no quota below 1 ms in 100 ms (sched-bwc.rst).
"""

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.model import ResourceLimits

_MEMORY = 8 * 1024 * 1024  # bytes; the least that runc and crun start within, with room for CMD
_PROCESSES = 16  # runc is a Go program, which has this many threads while it starts CMD
_CPUS = 0.01


def check(limits: ResourceLimits, cpus: float | None) -> None:
    """Raise ConfigError for a limit that is too low for any container to start."""
    if limits.memory is not None and limits.memory < _MEMORY:
        raise ConfigError(
            f"a container cannot start with so little memory: {limits.memory} bytes",
            where="--max-memory",
            fix="give it at least 8 MiB, and what CMD needs: --max-memory 512MiB",
        )
    if limits.processes is not None and limits.processes < _PROCESSES:
        raise ConfigError(
            f"a container cannot start with so few processes: {limits.processes}",
            where="--max-processes",
            fix=f"allow at least {_PROCESSES}",
        )
    if cpus is not None and cpus < _CPUS:
        raise ConfigError(
            f"a container cannot start with so little of a processor: {cpus:g}",
            where="--cpus",
            fix=f"give it at least {_CPUS:g}",
        )
