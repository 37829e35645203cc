"""Name resolver: the operating system's, on threads, of which no name and no client gets all.

Law kept: one client must not starve another. A look-up whose name server is silent occupies its
thread for as long as the system tries, and cannot be cancelled, so threads are shared out: one
look-up for each name, some for the names of one owner, and for each client less, the fewer are
free.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from claude_proxy.wire.address import Address
from claude_proxy.wire.public_suffix import public_suffix

logger = logging.getLogger(__name__)

type _AddrInfo = tuple[Any, ...]  # an entry that `socket.getaddrinfo` returns
type LookUp = Callable[[str], Sequence[_AddrInfo]]

# A thread that waits costs some kilobytes. Name servers that answer do so in milliseconds, so that
# more are only ever needed when some do not.
THREADS = 64
# One client gets half of them, so that it cannot take another's hosts of the same owner.
THREADS_OF_OWNER = 16
_LABELS_OF_SUFFIX = 4  # the longest public suffixes have as many


@dataclass(eq=False, slots=True)
class _Lookup:
    """One name that is looked up, or waits for a thread, and who waits for the answer."""

    host: str
    owner: str
    client: Hashable
    waiters: list[asyncio.Future[Sequence[_AddrInfo]]] = field(default_factory=list)


class SystemResolver:
    """Resolves names with the operating system's resolver.

    The threads are daemon threads, not an executor's, so that the program does not wait for them
    when it ends. Used on one event loop.
    """

    def __init__(self, look_up: LookUp | None = None, threads: int = THREADS) -> None:
        self._look_up = look_up or _getaddrinfo
        self._threads = threads
        self._lookups: dict[str, _Lookup] = {}  # by name, running or waiting
        self._waiting: dict[str, _Lookup] = {}  # in the order of arrival
        self._running = 0
        self._of_owner: Counter[Hashable] = Counter()
        self._of_client: Counter[Hashable] = Counter()
        self._of_both: Counter[Hashable] = Counter()
        self._is_exhausted = False

    async def __call__(
        self,
        host: str,
        port: int,  # noqa: ARG002 - the addresses of a name are those of all ports
        client: Hashable = None,
    ) -> list[Address]:
        """Return every address of `host`, in the order of the system; OSError if it has none."""
        lookup = self._lookups.get(host)
        if lookup is None:
            lookup = self._lookups[host] = _Lookup(host, owner_of(host), client)
            self._waiting[host] = lookup
            self._start_waiting()
        answer: asyncio.Future[Sequence[_AddrInfo]] = asyncio.get_running_loop().create_future()
        lookup.waiters.append(answer)
        try:
            found = await answer
        finally:
            self._leave(lookup, answer)
        return list(
            dict.fromkeys(ip_address(str(entry[4][0]).partition("%")[0]) for entry in found)
        )

    def _leave(self, lookup: _Lookup, answer: asyncio.Future[Sequence[_AddrInfo]]) -> None:
        with contextlib.suppress(ValueError):
            lookup.waiters.remove(answer)
        if not lookup.waiters and self._waiting.pop(lookup.host, None) is not None:
            del self._lookups[lookup.host]

    def _start_waiting(self) -> None:
        for lookup in list(self._waiting.values()):
            free = self._threads - self._running
            if free == 0:
                self._report_exhausted()
                return
            # The less is free, the less anybody may have: something is left for the next.
            left = min(THREADS_OF_OWNER - self._of_owner[lookup.owner], free)
            if self._of_both[lookup.owner, lookup.client] < left and (
                self._of_client[lookup.client] < free
            ):
                self._start(lookup)

    def _start(self, lookup: _Lookup) -> None:
        loop = asyncio.get_running_loop()
        del self._waiting[lookup.host]
        self._count(lookup, 1)

        def look_up() -> None:
            found: Sequence[_AddrInfo] | OSError
            try:
                found = self._look_up(lookup.host)
            except (OSError, UnicodeError) as error:
                found = error if isinstance(error, OSError) else OSError(str(error))
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(self._settle, lookup, found)

        threading.Thread(target=look_up, name="resolver", daemon=True).start()

    def _settle(self, lookup: _Lookup, found: Sequence[_AddrInfo] | OSError) -> None:
        del self._lookups[lookup.host]
        self._count(lookup, -1)
        self._is_exhausted = False
        for answer in lookup.waiters:
            if answer.done():
                continue
            if isinstance(found, OSError):
                answer.set_exception(found)
            else:
                answer.set_result(found)
        self._start_waiting()

    def _count(self, lookup: _Lookup, change: int) -> None:
        self._running += change
        counted: tuple[tuple[Counter[Hashable], Hashable], ...] = (
            (self._of_owner, lookup.owner),
            (self._of_client, lookup.client),
            (self._of_both, (lookup.owner, lookup.client)),
        )
        for counter, key in counted:
            counter[key] += change
            if not counter[key]:
                del counter[key]

    def _report_exhausted(self) -> None:
        if not self._is_exhausted:
            self._is_exhausted = True
            text = "%d look-ups wait for name servers that do not answer; further names wait"
            logger.warning(text, self._running)


def owner_of(host: str) -> str:
    """Return the part of a name below which all names belong to one owner ("example.co.uk")."""
    labels = host.split(".")
    for kept in range(min(len(labels) - 1, _LABELS_OF_SUFFIX), 0, -1):
        if public_suffix(".".join(labels[-kept:])) is not None:
            return ".".join(labels[-kept - 1 :])
    return ".".join(labels[-2:])


def _getaddrinfo(host: str) -> Sequence[_AddrInfo]:
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
