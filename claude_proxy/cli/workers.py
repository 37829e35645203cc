"""How many worker processes a command starts: as many as was said, or as suit this machine."""

from collections.abc import Sequence

from claude_proxy.config.settings import Listen
from claude_proxy.config.worker_count import AUTOMATIC, WorkerCount, automatic, lets_others_in


def worker_count(given: WorkerCount, listen: Sequence[Listen], connections: int) -> int:
    """Return the number for a proxy that makes these listeners for `connections` in all."""
    if given != AUTOMATIC:
        return max(1, min(given, connections))  # each may have one, and no more than all may
    if not lets_others_in(listen):
        return 1
    # Imported here, as every command that starts a proxy comes by.
    from claude_proxy.server.workers import CAN_SPREAD  # noqa: PLC0415
    from claude_proxy.system import processors  # noqa: PLC0415

    if not CAN_SPREAD:
        return 1
    return automatic(listen, processors=processors.usable(), connections=connections)
