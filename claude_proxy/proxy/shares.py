"""Shares: what each client uses of what all clients share.

Law kept: one client must not starve another. A client is whoever the kernel tells apart: the
process at the other end of a Unix socket (the relay of a run is one), or an IP address.
"""

from collections.abc import Callable, Hashable
from typing import Protocol

from claude_proxy.proxy.turns import ClientTurns, Turns, Worker


class Holder(Worker, Protocol):
    """A connection, and what it holds."""


class Share:
    """What one client uses."""

    def __init__(self, turns: Turns, forget: Callable[[], None]) -> None:
        self.connections: set[Holder] = set()
        self.turns = ClientTurns(turns, self.connections)
        self._forget = forget

    def join(self, connection: Holder) -> None:
        """Count a connection of the client's."""
        self.connections.add(connection)

    def leave(self, connection: Holder) -> None:
        """Count a connection no longer; the last one takes the share with it."""
        self.connections.discard(connection)
        if not self.connections:
            self._forget()


class Shares:
    """The shares of all clients."""

    def __init__(self, turns: Turns | None = None) -> None:
        self.turns = turns or Turns()
        self._shares: dict[Hashable, Share] = {}

    def of(self, client: Hashable) -> Share:
        """Return the share of a client, which it has as long as it is connected."""
        share = self._shares.get(client)
        if share is None:
            share = self._shares[client] = Share(self.turns, lambda: self._forget(client))
        return share

    def _forget(self, client: Hashable) -> None:
        self._shares.pop(client, None)
