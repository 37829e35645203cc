"""The laws of letting clients in: from known networks alone, never more than there is room for."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

import pytest
from mitmproxy.proxy.mode_servers import ServerInstance

from claude_proxy.connection import ClientConnection, Services
from claude_proxy.dialer import Dialer
from claude_proxy.errors import ConfigError
from claude_proxy.events import Notice, Phase
from claude_proxy.gate import Gate
from claude_proxy.layers.front import Front
from claude_proxy.layers.signals import Waiting
from claude_proxy.listeners import ClaudeMode, Listener, Listeners, _Arrival, bind, bind_all
from claude_proxy.policy import Policy
from claude_proxy.settings import Limits, Network
from tests.layers.stage import Ledger, options_of
from tests.layers.test_http1 import DENIED, reason_of
from tests.loopback import LOOPS, Names, Play, Run, Stream, connect, run_on, until

LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Return a function that plays a coroutine function on one of the two loops."""

    def play_on_loop(play: Play) -> None:
        run_on(request.param, play)

    return play_on_loop


@dataclass
class Door:
    """A running listener, and what came of its clients."""

    port: int
    manager: Listeners
    services: Services
    ledger: Ledger
    told: list[Notice]
    clients: list[Stream] = field(default_factory=list)

    async def client(self) -> Stream:
        """Connect, and wait until it was let in."""
        before = set(self.services.connections)
        self.clients.append(await connect(self.port))
        await until(lambda: self.services.connections - before)
        return self.clients[-1]

    async def stranger(self) -> Stream:
        self.clients.append(await connect(self.port))
        return self.clients[-1]

    def youngest(self) -> ClientConnection:
        return max(self.services.connections, key=lambda found: found.session.origin.connection)


@contextlib.asynccontextmanager
async def door_of(
    *, clients: tuple[Network, ...] = LOOPBACK, connections: int = 10, host: str = "127.0.0.1"
) -> AsyncIterator[Door]:
    ledger, told = Ledger(), list[Notice]()
    dialer = Dialer(Names())
    services = Services(
        gate=Gate(Policy(), ledger.events.append),
        dialer=dialer,
        limits=Limits(connections=connections),
        options=options_of(),
        hooks={},
        top_layer=lambda context, session: Front(context, session, dialer),
    )
    with bind(host, 0) as sock:
        port = sock.getsockname()[1]
        manager = Listeners([Listener("tcp", sock, clients)], services, told.append)
        instance: ServerInstance[ClaudeMode] = ServerInstance.make("claude:tcp", manager)
        await instance.start()
        door = Door(port, manager, services, ledger, told)
        try:
            yield door
        finally:
            await instance.stop()
            for connection in list(services.connections):
                connection.abort()
            for client in door.clients:
                await client.leaves()


# --- binding


def test_a_bound_socket_listens() -> None:
    with bind("127.0.0.1", 0) as sock, socket.create_connection(sock.getsockname()) as client:
        assert client.getpeername() == sock.getsockname()
        assert sock.proto == socket.IPPROTO_TCP  # else Nagle's algorithm stays on


def test_a_busy_port_is_a_clear_error() -> None:
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]

        with pytest.raises(ConfigError) as caught:
            bind("127.0.0.1", port)

    error = caught.value
    assert error.exit_code == 2
    assert error.what == f"cannot listen on 127.0.0.1 port {port}: address already in use"
    assert error.mend == "stop what listens there, or choose another port with --port"


def test_an_address_of_another_machine_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1 port 9051"):
        bind("192.0.2.1", 9051)


def test_an_ipv6_socket_is_for_ipv6_alone() -> None:
    with bind("::1", 0) as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_workers_share_one_port() -> None:
    sockets = bind_all("127.0.0.1", 0, 3)

    with contextlib.ExitStack() as stack:
        ports = {stack.enter_context(sock).getsockname()[1] for sock in sockets}
    assert len(sockets) == 3
    assert len(ports) == 1


def test_one_worker_shares_nothing() -> None:
    (sock,) = bind_all("127.0.0.1", 0, 1)

    with sock:
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_a_shared_port_must_be_free_first() -> None:
    with bind("127.0.0.1", 0, shared=True) as sock, pytest.raises(ConfigError):
        bind_all("127.0.0.1", sock.getsockname()[1], 2)


def test_a_listener_has_a_name() -> None:
    assert ClaudeMode.parse("claude:tcp").data == "tcp"
    with pytest.raises(ValueError, match="a listener has a name"):
        ClaudeMode.parse("claude")


# --- who is let in


def test_a_known_client_is_served(run: Run) -> None:
    async def play() -> None:
        async with door_of() as door:
            client = await door.client()
            await client.says(DENIED)
            answer = await client.gets_until(b"\r\n\r\n")

            assert reason_of(answer) == "no-rule"
            decision = door.ledger.decisions[0]
            assert decision.listener == "tcp"
            assert decision.client.startswith("127.0.0.1:")
            assert decision.connection

    run(play)


def test_a_stranger_is_turned_away_before_it_speaks(run: Run) -> None:
    async def play() -> None:
        async with door_of(clients=(IPv4Network("10.0.0.0/8"),)) as door:
            stranger = await door.stranger()
            answer = await stranger.gets_rest()

            assert answer.startswith(b"HTTP/1.1 403 ")
            assert reason_of(answer) == "client-not-allowed"
            assert door.ledger.decisions[0].phase is Phase.CLIENT
            assert door.ledger.reasons == ["client-not-allowed"]
            assert len(door.ledger.outcomes) == 1
            assert not door.services.connections

    run(play)


def test_an_ipv6_client_is_shown_in_brackets(run: Run) -> None:
    async def play() -> None:
        async with door_of(host="::1") as door:
            reader, writer = await asyncio.open_connection("::1", door.port)
            door.clients.append(Stream(reader, writer))
            await until(lambda: door.services.connections)

            assert door.youngest().session.origin.client.startswith("[::1]:")

    run(play)


def test_a_fault_lets_nobody_in(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        async with door_of() as door:

            def fail(context: object, session: object) -> Front:
                raise RuntimeError(f"a bug with {context} and {session}")

            door.services.top_layer = fail
            client = await door.stranger()

            assert await client.gets_rest() == b""
            assert not door.services.connections

    run(play)
    assert [entry.message for entry in caplog.records] == ["a client could not be let in"]


class Transport:
    """A transport that says what it is asked to say."""

    def __init__(self, peer: tuple[object, ...] | None) -> None:
        self.peer = peer
        self.aborted = False
        self.written = b""
        self.closed = False

    def get_extra_info(self, name: str) -> object:
        assert name == "peername"
        return self.peer

    def abort(self) -> None:
        self.aborted = True

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True


def test_a_client_that_is_gone_before_it_was_let_in_is_forgotten(run: Run) -> None:
    async def play() -> None:
        async with door_of() as door:
            transport = Transport(None)
            arrival = _Arrival(
                door.manager, door.manager.listeners["tcp"], ClaudeMode.parse("claude:tcp")
            )
            arrival.connection_made(transport)  # type: ignore[arg-type]

            assert transport.aborted
            assert not door.services.connections

    run(play)


@pytest.mark.parametrize(
    ("address", "admitted"),
    [
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("::1", True),
    ],
)
def test_an_address_is_judged_as_what_it_is(run: Run, address: str, *, admitted: bool) -> None:
    async def play() -> None:
        async with door_of(connections=0) as door:  # so that nobody gets further
            transport = Transport((address, 50000, 0, 0))
            arrival = _Arrival(
                door.manager, door.manager.listeners["tcp"], ClaudeMode.parse("claude:tcp")
            )
            arrival.connection_made(transport)  # type: ignore[arg-type]

            expected = "too-many-connections" if admitted else "client-not-allowed"
            assert reason_of(transport.written) == expected
            assert transport.closed

    run(play)


# --- no more than there is room for


def test_the_longest_idle_client_makes_room_for_the_next(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        async with door_of(connections=3) as door:
            first = await door.client()
            oldest = door.youngest()
            await door.client()
            busy = door.youngest()
            await door.client()
            busy.session.wait(Waiting.EXCHANGE)
            busy.active_at = oldest.active_at = 0.0
            last = await door.client()
            await last.says(DENIED)
            served = await last.gets_until(b"\r\n\r\n")

            assert await first.gets_rest() == b""
            assert reason_of(served) == "no-rule"
            assert oldest not in door.services.connections
            assert busy in door.services.connections
            assert len(door.services.connections) == 3
            (notice,) = door.told
            assert notice.kind == "limit"
            assert notice.text == "3 connections are open, as many as may be; idle ones are closed"
            assert notice.text in caplog.text

    run(play)


def test_where_all_are_busy_the_next_is_told_so(run: Run) -> None:
    async def play() -> None:
        async with door_of(connections=1) as door:
            await door.client()
            door.youngest().session.wait(Waiting.TUNNEL)
            last = await door.stranger()
            answer = await last.gets_rest()

            assert answer.startswith(b"HTTP/1.1 503 ")
            assert reason_of(answer) == "too-many-connections"
            assert len(door.services.connections) == 1

    run(play)


def test_a_flood_is_told_of_once_and_sheds_only_now_and_then(run: Run) -> None:
    async def play() -> None:
        async with door_of(connections=1) as door:
            for _ in range(3):
                await door.client()
                door.manager._shed_at = 0.0
            door.manager._shed_at = asyncio.get_running_loop().time() + 3600
            refused = await door.stranger()

            assert reason_of(await refused.gets_rest()) == "too-many-connections"
            assert len(door.told) == 1

    run(play)


def test_a_second_flood_is_told_of_again(run: Run) -> None:
    async def play() -> None:
        async with door_of(connections=1) as door:
            for _ in range(2):
                await door.client()
                await door.client()
                door.manager._shed_at = 0.0
                door.youngest().abort()

            assert len(door.told) == 2

    run(play)
