"""File descriptors of this process: how many it may have, and whether they are nearly used up.

The kernel gives each new file the lowest number that is free, so the number of a new one says how
many are open at least, so no count can go wrong.
"""

import errno
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


def is_last_but_kept(descriptor: int, *, for_client: bool = False) -> bool:
    """Tell whether a new descriptor is one of those that are kept.

    Half of them are kept `for_client`: to accept one while upstreams have used up the others.
    """
    soft = limit()
    if soft is None:
        return False
    kept = min(_KEPT, soft // _KEPT_SHARE)
    return descriptor >= soft - (kept // 2 if for_client else kept)


def are_exhausted(error: OSError) -> bool:
    """Tell whether an error says that no further file can be opened."""
    return error.errno in _EXHAUSTED
