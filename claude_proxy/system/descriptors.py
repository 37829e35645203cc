"""File descriptors of this process: how many sockets it may have, and how many are kept."""

import errno
import os
import resource

# For the audit log, name look-ups, and what accepts further clients. A process that may open only
# few files keeps an eighth of them.
_KEPT = 64
_KEPT_SHARE = 8

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})


def limit() -> int | None:
    """Return how many files this process may have open now; None: as many as it likes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def lowest_free() -> int:
    """Return the lowest number that is free; before there are sockets, how many files are open."""
    free = os.dup(0)
    os.close(free)
    return free


def is_room_for_client(sockets: int, others: int) -> bool:
    """Tell whether a client's socket more may be open, besides `others` that are no sockets."""
    soft = limit()
    return soft is None or sockets + others < soft - _kept(soft) // 2


def is_room_for_upstream(sockets: int, others: int) -> bool:
    """Tell whether an upstream's socket more may be open; the last ones are for clients."""
    soft = limit()
    return soft is None or sockets + others < soft - _kept(soft)


def are_exhausted(error: OSError) -> bool:
    """Tell whether an error says that no further file can be opened."""
    return error.errno in _EXHAUSTED


def _kept(soft: int) -> int:
    return min(_KEPT, soft // _KEPT_SHARE)
