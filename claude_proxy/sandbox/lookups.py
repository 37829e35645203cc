"""Names that a run looked up past the proxy: asked of the relay at its end, and told to the user.

The relay answers on the sandbox's 127.0.0.1:53 that there is no such name, and notes the names; see
`relay.name_lookups`. A program that looks a host up ignores the proxy, and fails with nothing more
than "unknown name".
"""

import socket
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox.relay.lookup_report import ASK, REPORT_LIMIT, parse_report

PORT = 53

_PATIENCE_S = 2.0
_SHOWN = 10  # names that are listed; the rest is counted


@dataclass(frozen=True, slots=True)
class NameLookup:
    """One name, how often it was looked up, and the program that asked first, "" if unknown."""

    name: str
    times: int
    program: str

    def __str__(self) -> str:
        by = f" by {self.program}" if self.program else ""
        times = f", {self.times} times" if self.times > 1 else ""
        return f"{self.name} was looked up past the proxy{by}{times}"


@dataclass(frozen=True, slots=True)
class NameLookups:
    """All lookups of one run."""

    names: tuple[NameLookup, ...] = ()
    others: int = 0  # queries for further names, which were not kept

    def lines(self) -> Iterator[str]:
        """Yield what the user reads."""
        yield from map(str, self.names[:_SHOWN])
        more = len(self.names) - _SHOWN
        if self.others:
            yield f"and {max(0, more) + self.others} more lookups past the proxy, of other names"
        elif more > 0:
            yield f"and {more} more names"


class LookupChannel:
    """The channel to the relay; `theirs` is the relay's end until it has been started."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(_PATIENCE_S)

    def ask(self) -> NameLookups:
        """Return what the relay has noted; nothing if it has ended."""
        with suppress(OSError, ValueError):
            self._ours.send(ASK)
            others, names = parse_report(self._ours.recv(REPORT_LIMIT))
            return NameLookups(tuple(NameLookup(*row) for row in names), others)
        return NameLookups()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ours.close()
        self.theirs.close()
