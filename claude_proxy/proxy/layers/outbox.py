"""Outbox of a layer: the commands of one event, with writes to the same peer joined into one.

One write a peer and event means one TLS record and one packet where there could be several.
"""

from collections.abc import Iterable

from mitmproxy.connection import Connection
from mitmproxy.proxy import commands

from claude_proxy.proxy.layers.upstream import UpstreamConnection


class Outbox:
    """Gathers what an event leads to, until `take`."""

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
        """Write to the upstream that `take` is given."""
        self._to_upstream.append(data)

    def add(self, command: commands.Command) -> None:
        """Take a command that overtakes the writes of this event."""
        self._commands.append(command)

    def extend(self, several: Iterable[commands.Command]) -> None:
        """Take commands that overtake the writes of this event."""
        self._commands.extend(several)

    def forget_upstream(self) -> None:
        """Drop what was to be written to an upstream that is given up."""
        self._to_upstream.clear()

    def close_client(self) -> None:
        """Close the client's connection after what was written to it."""
        self._flush_client()
        self._commands.append(commands.CloseConnection(self._client))

    def take(self, upstream: UpstreamConnection | None) -> list[commands.Command]:
        """Return the commands; what is written to an upstream goes to `upstream`."""
        self._flush_client()
        if self._to_upstream:
            if upstream is not None:
                self._commands.extend(upstream.send(_joined(self._to_upstream)))
            self._to_upstream.clear()
        taken, self._commands = self._commands, []
        return taken

    def _flush_client(self) -> None:
        if self._to_client:
            data = _joined(self._to_client)
            self._to_client.clear()
            self._commands.append(commands.SendData(self._client, data))


def _joined(pieces: list[bytes]) -> bytes:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
