"""State of a container by its first process, where the engine may have missed that it ended.

podman learns of an end from conmon, one process for each container. Where that was killed, a
container is "running" for podman forever, without a process; nothing can be done with it but to
remove it.
"""

import os
import select

from claude_proxy.sandbox.container.plan.model import ContainerState, ContainerStatus, EngineKind


def is_running(state: ContainerState, kind: EngineKind) -> bool:
    """Tell whether a container runs; one whose first process has ended does not."""
    if state.status is not ContainerStatus.RUNNING:
        return False
    # A daemon may be in a machine of its own, whose processes have other numbers.
    return kind is not EngineKind.PODMAN or state.pid <= 0 or not has_ended(state.pid)


def has_ended(pid: int) -> bool:
    """Tell whether there is surely no such process, or one that was only not waited for."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it cannot be told
    try:
        return bool(select.select([descriptor], [], [], 0)[0])
    finally:
        os.close(descriptor)
