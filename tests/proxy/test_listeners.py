"""Only allowed clients are admitted, and never more than the limit."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.config.settings import ClientCredentials, Limits, TcpListen
from claude_proxy.events import Notice, Phase
from claude_proxy.policy.policy import Policy
from claude_proxy.proxy.connection import ClientConnection, Services
from claude_proxy.proxy.dialer import Dialer
from claude_proxy.proxy.gate import Gate
from claude_proxy.proxy.layers.protocol_detection import ProtocolDetection
from claude_proxy.proxy.layers.session import Waiting
from claude_proxy.proxy.listeners import Listener, Listeners, _Admission
from claude_proxy.server.listening_sockets import bind
from claude_proxy.system import descriptors
from claude_proxy.wire.address import Network
from tests.proxy.layers.http1_peers import DENIED, reason_of
from tests.proxy.layers.stage import Ledger, options_of
from tests.support.loopback import LOOPS, Names, Play, Run, Stream, run_on, until

LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
OWN = frozenset({os.geteuid()})
PROGRAM = Path("/proc/self/exe").resolve()
PASSWORD = ClientCredentials("user", "password")


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Return a function that plays a coroutine function on one of the two loops."""

    def play_on_loop(play: Play) -> None:
        run_on(request.param, play)

    return play_on_loop


@dataclass
class Door:
    """A running listener, and what came of its clients."""

    address: Any
    manager: Listeners
    services: Services
    ledger: Ledger
    told: list[Notice]
    clients: list[Stream] = field(default_factory=list)

    async def client(self) -> Stream:
        """Connect, and wait until it was let in."""
        before = set(self.services.connections)
        await self.stranger()
        await until(lambda: self.services.connections - before)
        return self.clients[-1]

    async def stranger(self) -> Stream:
        if isinstance(self.address, str):
            self.clients.append(Stream(*await asyncio.open_unix_connection(self.address)))
        else:
            self.clients.append(Stream(*await asyncio.open_connection(*self.address[:2])))
        return self.clients[-1]

    def youngest(self) -> ClientConnection:
        return max(
            self.services.connections, key=lambda found: found.session.client_info.connection
        )


def bound(address: str | Path) -> socket.socket:
    """Return a listening socket: of TCP, or at a path."""
    if isinstance(address, str):
        return bind(TcpListen(address, 0))
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(address))
    sock.listen()
    return sock


@contextlib.asynccontextmanager
async def door_of(
    address: str | Path = "127.0.0.1",
    *,
    clients: tuple[Network, ...] = LOOPBACK,
    uids: frozenset[int] = frozenset(),
    credentials: ClientCredentials | None = None,
    connections: int = 10,
    **of_listener: Any,
) -> AsyncIterator[Door]:
    ledger, told = Ledger(), list[Notice]()
    dialer = Dialer(Names())
    services = Services(
        gate=Gate(Policy(), ledger.events.append),
        dialer=dialer,
        limits=Limits(connections=connections),
        options=options_of(),
        top_layer=lambda context, session: ProtocolDetection(context, session, dialer),
    )
    with bound(address) as sock:
        listener = Listener("the door", sock, clients, uids, credentials, **of_listener)
        manager = Listeners([listener], services, told.append)
        await manager.running()
        await manager.accepting()
        door = Door(sock.getsockname(), manager, services, ledger, told)
        try:
            yield door
        finally:
            manager.close()
            for connection in list(services.connections):
                connection.abort()
            for client in door.clients:
                await client.leaves()


# --- who is let in


def test_a_known_client_is_served(run: Run) -> None:
    async def play() -> None:
        async with door_of() as door:
            client = await door.client()
            await client.says(DENIED)
            answer = await client.gets_until(b"\r\n\r\n")

            assert reason_of(answer) == "no-rule"
            decision = door.ledger.decisions[0]
            assert decision.listener == "the door"
            assert decision.client.startswith("127.0.0.1:")
            assert decision.connection

    run(play)


def test_a_client_that_is_not_allowed_is_refused_before_it_sends(run: Run) -> None:
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
        async with door_of("::1") as door:
            await door.client()

            assert door.youngest().session.client_info.client.startswith("[::1]:")

    run(play)


def test_an_error_admits_no_client(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        async with door_of() as door:

            def fail(context: object, session: object) -> ProtocolDetection:
                raise RuntimeError(f"a bug with {context} and {session}")

            door.services.top_layer = fail
            client = await door.stranger()

            assert await client.gets_rest() == b""
            assert not door.services.connections

    run(play)
    assert [entry.message for entry in caplog.records] == ["a client could not be admitted"]


class Transport:
    """A transport that says what it is asked to say."""

    def __init__(self, peer: tuple[object, ...] | None) -> None:
        self.peer = peer
        self.aborted = False
        self.written = b""
        self.closed = False
        self.ended = False

    def get_extra_info(self, name: str) -> object:
        return self.peer if name == "peername" else ("127.0.0.1", 9051)

    def set_write_buffer_limits(self, *, high: int) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.aborted = True

    def write(self, data: bytes) -> None:
        self.written += data

    def set_protocol(self, protocol: Any) -> None:
        pass

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_client_on_this_machine_is_known_to_be_local(run: Run, host: str) -> None:
    async def play() -> None:
        async with door_of(host, credentials=PASSWORD) as door:
            await door.client()

            assert door.youngest().session.local
            assert door.youngest().session.credentials == PASSWORD

    run(play)


def test_a_client_of_another_machine_is_not_local(run: Run) -> None:
    async def play() -> None:
        async with door_of(clients=(IPv4Network("10.0.0.0/8"),)) as door:
            made: list[ClientConnection] = []
            with socket.socket() as closed:
                pass

            class Elsewhere(Transport):
                def get_extra_info(self, name: str) -> object:
                    return closed if name == "socket" else super().get_extra_info(name)

                def set_protocol(self, protocol: Any) -> None:
                    made.append(protocol.owner)

            arrival = _Admission(door.manager, door.manager.listeners[0], None, is_unix=False)
            arrival.connection_made(Elsewhere(("10.1.2.3", 50000)))  # type: ignore[arg-type]

            assert not made[0].session.local
            made[0].abort()

    run(play)


# --- Unix sockets


def test_a_process_is_shown_by_its_id_user_and_program(run: Run, tmp_path: Path) -> None:
    async def play() -> None:
        async with door_of(tmp_path / "p.sock", uids=OWN) as door:
            client = await door.client()
            await client.says(DENIED)
            await client.gets_until(b"\r\n\r\n")

            (decision,) = door.ledger.decisions
            assert decision.client == f"pid {os.getpid()} uid {os.geteuid()} {PROGRAM}"
            assert door.youngest().session.local

    run(play)


def test_a_user_who_may_not_use_the_socket_is_refused(run: Run, tmp_path: Path) -> None:
    async def play() -> None:
        async with door_of(tmp_path / "p.sock", uids=frozenset({65533})) as door:
            stranger = await door.stranger()
            answer = await stranger.gets_rest()

            assert reason_of(answer) == "client-not-allowed"
            (decision,) = door.ledger.decisions
            assert decision.phase is Phase.CLIENT
            assert decision.client.startswith(f"pid {os.getpid()} uid {os.geteuid()} ")
            assert not door.services.connections

    run(play)


def test_a_refused_client_gets_the_listeners_response_although_it_sends_late(
    run: Run, tmp_path: Path
) -> None:
    async def play() -> None:
        path = tmp_path / "p.sock"
        async with door_of(path, uids=frozenset({65533}), refusal=b"go away") as door:
            stranger = await door.stranger()
            await until(lambda: door.manager.refused)
            await stranger.says(b"x" * 100_000)

            assert await stranger.gets_rest() == b"go away"
            stranger.half_closes()
            await until(lambda: not door.manager.refused)

    run(play)


def test_many_refused_clients_are_closed_at_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claude_proxy.proxy.listeners._REFUSALS", 1)

    async def play() -> None:
        async with door_of(tmp_path / "p.sock", uids=frozenset({65533})) as door:
            first, second = await door.stranger(), await door.stranger()

            assert reason_of(await second.gets_rest()) == "client-not-allowed"
            assert reason_of(await first.gets_rest()) == "client-not-allowed"
            assert len(door.manager.refused) == 1

    run(play)


def test_a_listener_may_have_services_of_its_own(run: Run) -> None:
    async def play() -> None:
        ledger, dialer = Ledger(), Dialer(Names())
        own = Services(
            gate=Gate(Policy(), ledger.events.append),
            dialer=dialer,
            limits=Limits(),
            options=options_of(),
            top_layer=lambda context, session: ProtocolDetection(context, session, dialer),
        )
        async with door_of(services=own) as door:
            client = await door.stranger()
            await client.says(DENIED)
            await client.gets_until(b"\r\n\r\n")

            assert ledger.reasons == ["no-rule"]
            assert door.ledger.reasons == []
            assert len(own.connections) == 1
            for connection in list(own.connections):
                connection.abort()

    run(play)


def test_a_peer_that_the_kernel_does_not_name_is_not_let_in(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: object) -> None:
        raise OSError("no credentials")

    monkeypatch.setattr("claude_proxy.proxy.listeners.peer_of", refuse)

    async def play() -> None:
        async with door_of(tmp_path / "p.sock", uids=OWN) as door:
            client = await door.stranger()

            assert await client.gets_rest() == b""
            assert not door.services.connections

    run(play)
    assert "a client could not be admitted" in caplog.text


def test_a_stopped_listener_leaves_the_socket_file(run: Run, tmp_path: Path) -> None:
    async def play() -> None:
        async with door_of(tmp_path / "p.sock", uids=OWN) as door:
            await door.client()

        assert (tmp_path / "p.sock").is_socket()

    run(play)


def test_the_first_byte_tells_that_a_client_has_entered(run: Run, tmp_path: Path) -> None:
    async def play() -> None:
        entered: list[str] = []
        path = tmp_path / "p.sock"
        async with door_of(path, uids=OWN, on_first_byte=lambda: entered.append("in")) as door:
            looking = await door.client()
            await looking.leaves()
            await until(lambda: not door.services.connections)
            halved = await door.client()
            halved.half_closes()
            await halved.gets_rest()
            assert entered == []

            client = await door.client()
            await client.says(DENIED[:10])
            await client.says(DENIED[10:])
            answer = await client.gets_until(b"\r\n\r\n")

            assert reason_of(answer) == "no-rule"
            assert entered == ["in"]

    run(play)


def test_an_error_of_a_listener_is_reported(run: Run) -> None:
    async def play() -> None:
        async with door_of() as door:
            with bind(TcpListen("127.0.0.1", 0)) as sock:
                closed = Listener("closed", sock)
            manager = Listeners([closed], door.services, door.told.append)

            await manager.running()

            with pytest.raises((OSError, ValueError)):
                await manager.accepting()

    run(play)


def test_a_client_that_is_gone_before_it_was_let_in_is_forgotten(run: Run) -> None:
    async def play() -> None:
        async with door_of() as door:
            transport = Transport(None)
            arrival = _Admission(door.manager, door.manager.listeners[0], None, is_unix=False)
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
            arrival = _Admission(door.manager, door.manager.listeners[0], None, is_unix=False)
            arrival.connection_made(transport)  # type: ignore[arg-type]

            expected = "too-many-connections" if admitted else "client-not-allowed"
            assert reason_of(transport.written) == expected
            assert transport.closed or transport.ended

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
            assert notice.text == (
                "the limit of 3 open connections is reached; "
                "1 connection was closed, of 127.0.0.1, which had 3"
            )
            assert notice.text in caplog.text

    run(play)


def test_a_client_is_refused_if_all_connections_are_busy(run: Run) -> None:
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


def test_a_flood_is_reported_once_and_sheds_periodically(run: Run) -> None:
    async def play() -> None:
        async with door_of(connections=1) as door:
            for _ in range(3):
                await door.client()
            share = door.youngest().share
            share.refused_until = asyncio.get_running_loop().time() + 3600
            refused = await door.stranger()

            assert reason_of(await refused.gets_rest()) == "too-many-connections"
            assert len(door.told) == 1

    run(play)


def test_a_second_flood_is_reported_again(run: Run) -> None:
    async def play() -> None:
        async with door_of(connections=1) as door:
            for _ in range(2):
                await door.client()
                await door.client()
                door.youngest().abort()
                door.services.shares._reported.clear()  # as time does

            assert len(door.told) == 2

    run(play)


def test_another_clients_connections_make_room_however_busy_they_are(run: Run) -> None:
    async def play() -> None:
        async with door_of(connections=3) as door:
            for _ in range(3):
                await door.client()
                door.youngest().session.wait(Waiting.EXCHANGE)
            reader, writer = await asyncio.open_connection(
                *door.address[:2], local_addr=("127.0.0.2", 0)
            )
            other = Stream(reader, writer)
            door.clients.append(other)
            await other.says(DENIED)

            assert reason_of(await other.gets_until(b"\r\n\r\n")) == "no-rule"
            assert len(door.services.connections) == 3

    run(play)


def test_a_client_is_accepted_on_the_last_descriptors_and_another_shed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with door_of() as door:
            first = await door.client()
            monkeypatch.setattr(descriptors, "is_room_for_client", lambda *_: False)
            await door.client()

            assert await first.gets_rest() == b""
            assert len(door.services.connections) == 1
            await until(lambda: door.services.shares.open_sockets == 1)
            assert door.told[0].text.startswith("nearly all of the ")

    run(play)
