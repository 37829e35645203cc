"""Outbox of a layer: the commands of one event, with all writes to the same peer joined.

One write per peer and event means one TLS record and one packet instead of several. Only what fills
many packets stays in its pieces, as to join them would be one more copy.
"""

from collections.abc import Iterable

from mitmproxy.connection import Connection
from mitmproxy.proxy import commands

from claude_proxy.proxy.layers.upstream import PIECE, UpstreamConnection


class Outbox:
    """Collects the commands of an event until `take`."""

    __slots__ = ("_client", "_commands", "_to_client", "_to_upstream")

    def __init__(self, client: Connection) -> None:
        self._client = client
        self._commands: list[commands.Command] = []
        self._to_client: list[bytes] = []
        self._to_upstream: list[bytes] = []

    def to_client(self, data: bytes) -> None:
        """Write to the client."""
        if data:
            self._to_client.append(data)

    def to_upstream(self, data: bytes) -> None:
        """Write to the upstream that is passed to `take`."""
        self._to_upstream.append(data)

    def add(self, command: commands.Command) -> None:
        """Add a command that is executed before the writes of this event."""
        self._commands.append(command)

    def extend(self, several: Iterable[commands.Command]) -> None:
        """Add commands that are executed before the writes of this event."""
        self._commands.extend(several)

    def forget_upstream(self) -> None:
        """Drop the pending writes to an upstream that is abandoned."""
        self._to_upstream.clear()

    def close_client(self) -> None:
        """Close the client's connection after the pending writes to it."""
        self._flush_client()
        self._commands.append(commands.CloseConnection(self._client))

    def take(self, upstream: UpstreamConnection | None) -> list[commands.Command]:
        """Return the commands, and reset; pending upstream writes go to `upstream`."""
        self._flush_client()
        if self._to_upstream:
            if upstream is not None:
                for piece in _joined(self._to_upstream):
                    self._commands.extend(upstream.send(piece))
            self._to_upstream.clear()
        taken, self._commands = self._commands, []
        return taken

    def _flush_client(self) -> None:
        pieces = self._to_client
        if len(pieces) > 1:
            pieces = _joined(pieces)
        for piece in pieces:
            self._commands.append(commands.SendData(self._client, piece))
        self._to_client.clear()


def _joined(pieces: list[bytes]) -> list[bytes]:
    """Return the same bytes in one piece, or as they are if they are many."""
    if len(pieces) == 1:
        return pieces
    return pieces if sum(map(len, pieces)) > PIECE else [b"".join(pieces)]
