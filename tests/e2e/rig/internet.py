"""Puts the internet of the tests together: cable, names, origins; and what they saw.

Every law is judged by `Seen`: the packets on the cable, the names that were asked for, the
connections and requests that reached an origin between two moments.
"""

import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.waiting import until

from .http2 import serve_http2
from .name_server import NameServer
from .namespaces import NAME_SERVER, Cabled
from .origin import Arrival, Exchange, Origin, Site
from .pki import Pki
from .routes import routes
from .wire import Packet, Wire


@dataclass
class Seen:
    """What left the host while a test acted; filled when the acting is over."""

    packets: list[Packet] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)

    def nothing(self) -> bool:
        """Tell whether not one packet left and nothing arrived anywhere."""
        return not (self.packets or self.names or self.arrivals or self.exchanges)

    def dialled(self) -> set[tuple[str, int]]:
        """Return where TCP connections were attempted to."""
        return {(seen.address, seen.port) for seen in self.packets if seen.protocol == "tcp"}

    def targets(self) -> list[str]:
        """Return the request targets that origins saw, in order."""
        return [exchange.target for exchange in self.exchanges]


class Internet:
    """All that is beyond the host, and the host's own namespace beside it."""

    def __init__(self, directory: Path, *, rtt_ms: float = 0.0) -> None:
        with ExitStack() as stack:
            cabled = Cabled(directory, rtt_ms=rtt_ms)
            stack.callback(cabled.close)
            self.host = cabled.host
            self.namespace = cabled.internet
            self.wire = Wire(cabled.host, cabled.internet)
            stack.callback(self.wire.close)
            self.names = NameServer(cabled.internet)
            stack.callback(self.names.close)
            self.pki = Pki(directory)
            self.origin = Origin(cabled.internet, self.pki, routes, serve_http2)
            stack.callback(self.origin.close)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Take it all down."""
        self._stack.close()

    def site(self, host: str, site: Site | None = None, *, http2: bool = False) -> str:
        """Put `host` on the internet, at a public address of its own, which is returned."""
        # Public, as any address that no registry keeps apart; made of the name to be stable.
        number = zlib.crc32(host.encode())
        address = f"93.{184 + number % 8}.{number >> 8 & 255}.{number >> 16 & 255 or 1}"
        self.names.answer(host, [address])
        if site is not None:
            self.origin.sites[host] = site
        if http2:
            self.origin.http2_hosts.add(host)
        return address

    @contextmanager
    def watch(self) -> Iterator[Seen]:
        """Collect what leaves the host and what arrives at origins meanwhile."""
        packets, asked = len(self.wire.packets()), len(self.names.asked)
        arrivals, exchanges = len(self.origin.arrivals), len(self.origin.exchanges)
        seen = Seen()
        yield seen
        seen.packets = [
            packet
            for packet in self.wire.packets()[packets:]
            if (packet.address, packet.port) != (NAME_SERVER, 53)
        ]
        seen.names = self.names.asked[asked:]
        seen.arrivals = self.origin.arrivals[arrivals:]
        seen.exchanges = self.origin.exchanges[exchanges:]

    def wait_until_all_closed(self) -> None:
        """Wait until no connection to any origin is open."""
        until(
            lambda: self.origin.open_connections() == 0,
            f"{self.origin.open_connections()} upstream connections are still open",
        )
