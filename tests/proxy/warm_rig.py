"""A pool of warm connections on real sockets, with a clock and a policy that a test changes."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

from claude_proxy.config.settings import Limits
from claude_proxy.errors import AuditError
from claude_proxy.events import Event, Notice
from claude_proxy.policy.policy import Policy
from claude_proxy.proxy.connection import Services
from claude_proxy.proxy.dialer import Dialer
from claude_proxy.proxy.endpoint import Endpoint
from claude_proxy.proxy.gate import ClientInfo, Gate
from claude_proxy.proxy.layers.upstream import UpstreamConnection
from claude_proxy.proxy.shares import Shares
from claude_proxy.proxy.upstream_tls import UpstreamTls
from claude_proxy.proxy.warm_keys import Key, Owner, Route
from claude_proxy.proxy.warm_upstreams import Beneficiary, WarmUpstreams
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import policy_of
from tests.support.loopback import Names, Origin, Stream, until

CLIENT = ClientInfo(7, "127.0.0.1:50000", "tcp")


def policy_for(*ports: int, scheme: str = "http", denied: str = "") -> Policy:
    return policy_of(
        f"allow: [{{host: example.com, scheme: {scheme}, ports: {list(ports)}, "
        f"addresses: [127.0.0.1/32, 127.0.0.2/32]}}]\n{denied}"
    )


@dataclass
class Secrets:
    """A vault whose secrets a test changes."""

    values: dict[str, object] = field(default_factory=dict)

    @property
    def secrets(self) -> Mapping[str, object]:
        return MappingProxyType(self.values)

    def learn(self, name: str, _: tuple[bytes, bytes], /) -> None:
        raise LookupError(name)

    def answered(self, name: str, status: int) -> None:
        pass


class Pool:
    """Keeps connections to one port of example.com ready."""

    def __init__(
        self,
        port: int,
        *,
        names: Names | None = None,
        policy: Policy | None = None,
        authority: CertificateAuthority | None = None,
        tls: bool = False,
        alpn: tuple[bytes, ...] = (b"http/1.1",),
    ) -> None:
        self.recorded: list[Event] = []
        self.disk_is_full = False
        self.secrets = Secrets()
        self.now_s = 1000.0
        self.wall_s = 0.0
        self.shares = Shares()
        self.dialer = Dialer(names or Names(example_com=["127.0.0.1"]))
        self.gate = self.gate_of(policy or policy_for(port, scheme="https" if tls else "http"))
        roots = None if authority is None else str(authority.certificate_path)
        self.warm = WarmUpstreams(
            self.dialer,
            self.shares,
            UpstreamTls(roots),
            Limits(),
            lambda: self.now_s,
            wall_clock=lambda: self.wall_s,
        )
        self.route = Route(Authority.of("example.com", port), tls=tls, alpn=alpn, tunnel=tls)
        self.client = Beneficiary(self.gate, CLIENT, "share")
        self.key = Key(Owner("tcp", "127.0.0.1", None), self.route, None)

    def gate_of(self, policy: Policy) -> Gate:
        return Gate(policy, self._record, secret_provider=self.secrets)  # type: ignore[arg-type]

    def _record(self, event: Event) -> None:
        if self.disk_is_full:
            raise AuditError("the disk is full")
        self.recorded.append(event)

    @property
    def notices(self) -> list[str]:
        return [each.text for each in self.recorded if isinstance(each, Notice)]

    def of(self, services: Services) -> WarmUpstreams:
        """Return what keeps connections for the clients of a proxy, by the clock of this pool."""
        return WarmUpstreams(
            services.dialer,
            services.shares,
            services.upstream_tls,
            Limits(),
            lambda: self.now_s,
        )

    def keep(self, key: Key | None = None, client: Beneficiary | None = None) -> None:
        self.warm.keep(key or self.key, client or self.client)

    async def is_ready(self, count: int = 1) -> None:
        """Wait until so many have shaken hands."""
        await until(lambda: self.warm.ready == count)

    async def is_empty(self) -> None:
        await until(lambda: not len(self.warm))

    def take(self, key: Key | None = None) -> "Taken | None":
        found = self.warm.take(key or self.key, self.gate)
        return None if found is None else Taken(*found)


class Taken:
    """A connection that was handed over, with what comes on it."""

    def __init__(self, upstream: UpstreamConnection, endpoint: Endpoint) -> None:
        self.upstream = upstream
        self.endpoint = endpoint
        self.got = bytearray()
        endpoint.owner = self

    def says(self, data: bytes) -> None:
        transport = self.endpoint.transport
        assert transport is not None
        for command in self.upstream.send(data):
            transport.write(command.data)  # type: ignore[attr-defined]

    def received(self, _: Endpoint, data: bytes) -> None:
        self.got += data

    def ended(self, _: Endpoint) -> None:
        pass

    def lost(self, _: Endpoint) -> None:
        pass

    def count_socket(self, change: int) -> None:
        pass

    def balance(self) -> None:
        pass

    def leaves(self) -> None:
        if self.endpoint.transport is not None:
            self.endpoint.transport.abort()


class TlsOriginServer:
    """A server of TLS that hands each connection to the test, its handshake done."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()
        self.port = 0
        self._opened: list[Stream] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for stream in self._opened:
            await stream.leaves()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._opened.append(Stream(reader, writer))
        await self.streams.put(self._opened[-1])

    async def accepts(self) -> Stream:
        return await self.streams.get()


async def kept(pool: Pool, origin: Origin | TlsOriginServer) -> Stream:
    """Return the upstream's end of a connection that is ready."""
    pool.keep()
    await pool.is_ready()
    return await origin.accepts()
