"""Connection records: mitmproxy's `Client` and `Context`, without what is made and never read.

For each connection mitmproxy would draw two random numbers for UUIDs, make a record of an upstream
that most connections never have, and look an option up that does not exist at every layer: together
a tenth of what a refused tunnel costs. Here a connection equals itself and nothing else.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, cast

from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context

# Names of this module, because looking up an enum member costs more than the comparison.
_OPEN: Final = ConnectionState.OPEN
_CAN_READ: Final = ConnectionState.CAN_READ

_numbers = itertools.count()


def next_id() -> str:
    """Return an id that no other connection of this process has."""
    return f"connection-{next(_numbers)}"


def can_read(connection: Connection) -> bool:
    """Tell whether the peer may still send; mitmproxy's flags take ten times as long to say so."""
    state = connection.state
    return state is _OPEN or state is _CAN_READ


@dataclass(eq=False, repr=False, kw_only=True)
class ClientRecord(Client):
    """The record of a client's connection."""

    id: str = field(default_factory=next_id)

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class LayerContext(Context):
    """What the layers of a connection share."""

    def __init__(self, client: Client, options: Options) -> None:
        self.client = client
        self.options = cast("Options", _LayerOptions(options))
        self.layers = []
        self._server: Server | None = None

    @property
    def server(self) -> Server:
        """The record of the upstream; made when it is first asked for."""
        if self._server is None:
            self._server = Server(address=None, id=next_id())
        return self._server

    @server.setter
    def server(self, server: Server) -> None:
        self._server = server

    def fork(self) -> "LayerContext":
        """Return a context whose upstream and layers may become others."""
        forked = LayerContext.__new__(LayerContext)
        forked.client, forked.options = self.client, self.options
        forked.layers = self.layers.copy()
        forked._server = self._server  # noqa: SLF001 - of the same class
        return forked


class _LayerOptions:
    """The options of the proxy, and one that every layer of mitmproxy looks for in vain."""

    proxy_debug: ClassVar = False

    def __init__(self, options: Options) -> None:
        self._options = options

    def __getattr__(self, name: str) -> Any:
        return getattr(self._options, name)
