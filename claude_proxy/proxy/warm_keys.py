"""Keys of warm upstream connections: for whom and for what one is kept, and which goes first; pure.

Law kept: nothing of one client reaches another, so a connection that waits belongs to one client,
one credential and one target, and one client must not starve another.
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from claude_proxy.wire.authority import Authority

# An API that is called through several hosts has one for each of them; a browser has many hosts.
MOST_OF_OWNER = 8
MOST = 64


class Route(NamedTuple):
    """What is dialled, and how it is spoken to."""

    target: Authority
    tls: bool
    alpn: tuple[bytes, ...]  # what is offered
    tunnel: bool  # how an upstream proxy would be used, see `UpstreamServer`


class Owner(NamedTuple):
    """Whom a connection is kept for."""

    listener: str
    client: Hashable  # whom the kernel tells apart, see `shares`
    run: str | None  # proven, and not claimed


class Key(NamedTuple):
    """Connections are kept for each: as many as `warm_demand` says."""

    owner: Owner
    route: Route
    credential: str | None  # the binding whose credential the request contained


def too_many(keys: Iterable[Key], new: Key, *, processes: int = 1) -> Key | None:
    """Return the key whose connection has to go so that there may be one for `new`; None: none.

    `keys` are in the order in which they were opened. Of all clients, the one with most gives. The
    bounds are divided by the number of `processes` that serve the same clients.
    """
    known = list(keys)
    mine = [key for key in known if key.owner == new.owner]
    if len(mine) >= max(1, MOST_OF_OWNER // processes):
        return mine[0]
    if len(known) < max(1, MOST // processes):
        return None
    counts = Counter(key.owner for key in known)
    greediest = max(counts, key=lambda owner: counts[owner])
    return next(key for key in known if key.owner == greediest)
