"""Shares: what each client uses of what all clients share, and who gives up something for whom.

Law kept: one client must not starve another. Where something runs short, the client that uses most
of it is shed first, and of its connections the one that nobody would miss; a client that uses
little is never shed for one that uses more. A client that is alone may use everything.

A client is whom the kernel tells apart: the process at the other end of a Unix socket (the relay of
a run is one), or an IP address.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Protocol

from claude_proxy.proxy.turns import ClientTurns, Turns, Worker

logger = logging.getLogger(__name__)

# 1/20 of the connections that nobody would miss is shed at a time: searching takes milliseconds.
_BATCH = 20
_PAUSE_S = 50e-6  # for each connection, after a search that found nothing to shed
_REPORT_S = 60.0  # one flood is one line


_MIB = 1024 * 1024
# Of bytes that wait in all connections. A body may have 32 MiB, and no peer takes all at once.
MEMORY_LIMIT = 768 * _MIB


class Standing(IntEnum):
    """What would be lost with a connection, from nothing to something."""

    IDLE = auto()  # no exchange is in progress
    SLOW = auto()  # its client owes the rest of a body, and sends next to nothing
    SILENT = auto()  # no byte has passed for a while
    BUSY = auto()


class Holder(Worker, Protocol):
    """A connection, and what it holds."""

    @property
    def sockets(self) -> int:
        """How many sockets it has open or is about to open, with those to upstreams."""

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait in it: bodies to be judged, and what a peer has not taken yet."""

    def standing(self, now: float) -> tuple[Standing, float]:
        """Return what would be lost with it, and when something was last done on it."""

    def shed(self) -> None:
        """End at once, in favour of another client."""


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that can run short."""

    of: Callable[[Holder], int]  # how much a connection uses
    unit: int  # less than this makes no difference between two connections


CONNECTIONS = Resource(lambda _: 1, 2)
SOCKETS = Resource(lambda holder: holder.sockets, 8)
MEMORY = Resource(lambda holder: holder.waiting_bytes, _MIB)


class Share:
    """What one client uses."""

    def __init__(self, client: Hashable, turns: Turns) -> None:
        self.client = client
        self.connections: set[Holder] = set()
        self.turns = ClientTurns(turns, self.connections)
        self.refused_until = 0.0  # nothing was found to shed for it

    def __str__(self) -> str:
        if isinstance(self.client, tuple):
            uid, pid = self.client
            return f"process {pid or '?'} of user {uid}"
        return str(self.client)

    def total(self, resource: Resource) -> int:
        """Return how much of a resource all its connections use."""
        return sum(map(resource.of, self.connections))


class Shares:
    """The shares of all clients that are connected."""

    def __init__(self, turns: Turns | None = None) -> None:
        self.turns = turns or Turns()
        self.report: Callable[[str], None] = logger.warning  # of what ran short, and who was shed
        self.open_sockets = 0  # of clients, upstreams, and dials
        self.other_files = 0  # what was open before the first of them
        # Closes the sockets that nobody needs yet; tells whether there were any.
        self.shed_spare: Callable[[], bool] = lambda: False
        self._shares: dict[Hashable, Share] = {}
        self._reported: dict[tuple[Resource, bool], float] = {}

    def of(self, client: Hashable) -> Share:
        """Return the share of a client, which it has as long as it is connected."""
        share = self._shares.get(client)
        if share is None:
            share = self._shares[client] = Share(client, self.turns)
        return share

    def join(self, share: Share, connection: Holder) -> None:
        """Count a connection of a client's."""
        self._shares[share.client] = share
        share.connections.add(connection)

    def leave(self, share: Share, connection: Holder) -> None:
        """Count a connection no longer; the share goes with the last one."""
        share.connections.discard(connection)
        self.release(share)

    def release(self, share: Share) -> None:
        """Forget a share that has no connection."""
        if not share.connections and self._shares.get(share.client) is share:
            del self._shares[share.client]

    def make_room(
        self,
        resource: Resource,
        share: Share,
        problem: str,
        *,
        wanting: Holder | None = None,
        more: int = 1,
    ) -> bool:
        """Shed connections so that a client may use `more` of a resource; tell whether any was.

        `wanting` is the connection that wants it, if it exists already; it is not shed itself.
        """
        if resource is SOCKETS and self.shed_spare():
            return True
        now = asyncio.get_running_loop().time()
        if now < share.refused_until:
            return False
        shed = self._choose(resource, share, wanting, more, now)
        if not shed:
            share.refused_until = now + _PAUSE_S * sum(
                len(each.connections) for each in self._shares.values()
            )
        self._report(resource, problem, shed, now)
        for connection in shed:
            connection.shed()
        return bool(shed)

    def relieve_memory(self, limit: int = MEMORY_LIMIT) -> None:
        """Shed connections while more bytes wait in all than may; called about once a second."""
        while True:
            totals = {share: share.total(MEMORY) for share in self._shares.values()}
            if sum(totals.values()) <= limit:
                return
            now = asyncio.get_running_loop().time()
            greediest = max(totals, key=lambda each: totals[each])
            shed = _greediest(greediest.connections, MEMORY, now)
            problem = f"more than {limit // _MIB} MiB wait to be sent or judged"
            self._report(MEMORY, problem, [shed], now)
            shed.shed()

    def _choose(
        self, resource: Resource, share: Share, wanting: Holder | None, more: int, now: float
    ) -> list[Holder]:
        totals = {each: each.total(resource) for each in self._shares.values()}
        mine = totals.get(share, 0)
        wanted = more if wanting is None else resource.of(wanting) + more
        greediest = max(totals, key=lambda each: totals[each], default=share)
        others = [one for one in greediest.connections if one is not wanting]
        worst = _greediest(others, resource, now) if others else None
        if worst is None:
            return []
        outweighs = resource.of(worst) // resource.unit > wanted // resource.unit
        if outweighs or (greediest is not share and totals[greediest] > mine + more):
            return [worst]
        # It is the greediest itself, so it gives up what it does not need, or gets nothing.
        found = [
            (connection.standing(now), connection)
            for each, total in totals.items()
            if total >= mine
            for connection in each.connections
            if connection is not wanting
        ]
        spare = sorted(
            (one for one in found if one[0][0] is not Standing.BUSY), key=lambda one: one[0]
        )
        return [connection for _, connection in spare[: max(1, len(found) // _BATCH)]]

    def _report(self, resource: Resource, problem: str, shed: list[Holder], now: float) -> None:
        # Apart: that nothing could be closed at first must not keep back whose were closed then.
        kind = resource, bool(shed)
        if now < self._reported.get(kind, -_REPORT_S) + _REPORT_S:
            return
        self._reported[kind] = now
        self.report(f"{problem}; {self._told(shed)}")

    def _told(self, shed: list[Holder]) -> str:
        if not shed:
            return "nothing could be closed, so more is refused"
        owner = next((one for one in self._shares.values() if shed[0] in one.connections), None)
        count, had = len(shed), 0 if owner is None else len(owner.connections)
        what = "connection was" if count == 1 else "connections were"
        return f"{count} {what} closed, of {owner}, which had {had}"


def _greediest(connections: Iterable[Holder], resource: Resource, now: float) -> Holder:
    """Return the connection that uses most; of equal ones that with the least to lose."""

    def weight(connection: Holder) -> tuple[int, Standing, float]:
        standing, since = connection.standing(now)
        return -(resource.of(connection) // resource.unit), standing, since

    return min(connections, key=weight)
