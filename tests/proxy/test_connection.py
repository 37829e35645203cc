"""A client connection on real sockets executes commands in order, is bounded, and fails closed."""

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer

from claude_proxy.config.settings import Limits
from claude_proxy.policy.credentials.decision import AvailableSecrets, CredentialDecision
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.decision import FAULT
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.verdict import Verdict
from claude_proxy.proxy import connection as connection_module
from claude_proxy.proxy import gate as gate_module
from claude_proxy.proxy.connection import (
    READ_AHEAD,
    ClientConnection,
    Services,
    connection_numbers,
)
from claude_proxy.proxy.dialer import Dialer, DialError, Failure
from claude_proxy.proxy.endpoint import Endpoint
from claude_proxy.proxy.gate import Attempt, Gate, NoSecrets
from claude_proxy.proxy.layers.protocol_detection import ProtocolDetection
from claude_proxy.proxy.layers.session import (
    ContinueLater,
    PauseReading,
    RanApart,
    RuleRevoked,
    RunApart,
    Session,
    TimedOut,
    TurnCame,
    Waiting,
)
from claude_proxy.proxy.layers.upstream import UpstreamServer
from claude_proxy.proxy.shares import Standing
from claude_proxy.system import descriptors
from claude_proxy.wire.address import Address
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.http1_peers import LAST_CHUNK, OK, reason_of
from tests.proxy.layers.stage import Ledger, options_of, policy_of
from tests.support.loopback import LOOPS, Names, Origin, Play, Run, Stream, connect, run_on, until

type Script = Callable[[events.Event], Iterable[commands.Command]]
type MakeLayer = Callable[[Context, Session, Dialer], Layer]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Return a function that plays a coroutine function on one of the two loops."""

    def play_on_loop(play: Play) -> None:
        run_on(request.param, play)

    return play_on_loop


class Scripted(Layer):
    """A layer that does as it is told, and remembers what it heard."""

    def __init__(self, context: Context, script: Script) -> None:
        super().__init__(context)
        self.heard: list[events.Event] = []
        self._script = script

    def handle_event(self, event: events.Event) -> Iterator[commands.Command]:  # type: ignore[override]
        self.heard.append(event)
        yield from self._script(event)

    def _handle_event(self, _: events.Event) -> Iterator[commands.Command]:  # type: ignore[override]
        raise NotImplementedError


@dataclass
class Proxy:
    """A listener whose connections are the ones under test."""

    port: int
    services: Services
    ledger: Ledger
    made: list[ClientConnection] = field(default_factory=list)
    clients: list[Stream] = field(default_factory=list)

    @property
    def connection(self) -> ClientConnection:
        return self.made[-1]

    @property
    def heard(self) -> list[events.Event]:
        layer = self.connection.layer
        assert isinstance(layer, Scripted)
        return layer.heard

    async def client(self) -> Stream:
        """Connect, and wait until the proxy has noticed."""
        count = len(self.made)
        self.clients.append(await connect(self.port))
        await until(lambda: len(self.made) > count)
        return self.clients[-1]


class _Arrival(asyncio.Protocol):
    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        client = Client(peername=name, sockname=("127.0.0.1", 1), state=ConnectionState.OPEN)
        made = ClientConnection(self._proxy.services, client, "tcp", f"127.0.0.1:{name[1]}")
        self._proxy.made.append(made)
        transport.set_protocol(made.endpoint)
        made.endpoint.connection_made(transport)
        made.start()


def front(context: Context, session: Session, dialer: Dialer) -> Layer:
    return ProtocolDetection(context, session, dialer)


def scripted(script: Script) -> MakeLayer:
    return lambda context, _session, _dialer: Scripted(context, script)


def silent(_: events.Event) -> Iterable[commands.Command]:
    return ()


@contextlib.asynccontextmanager
async def proxy_of(
    make: MakeLayer = front,
    *,
    policy: Policy | None = None,
    limits: Limits | None = None,
    resolve: Names | None = None,
) -> AsyncIterator[Proxy]:
    ledger = Ledger()
    dialer = Dialer(resolve or Names(example_com=["127.0.0.1"]))
    gate = Gate(policy or Policy(), ledger.events.append)
    services = Services(
        gate=gate,
        dialer=dialer,
        limits=limits or Limits(),
        options=options_of(),
        top_layer=lambda context, session: make(context, session, dialer),
    )
    proxy = Proxy(0, services, ledger)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Arrival(proxy), "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for made in proxy.made:
            made.abort()
        for client in proxy.clients:
            await client.leaves()


def policy_for(port: int) -> Policy:
    return policy_of(
        f"allow: [{{host: example.com, scheme: http, ports: [{port}], addresses: [127.0.0.1/32]}}]"
    )


def request(port: int, method: str = "GET", *fields: str) -> bytes:
    lines = [f"{method} http://example.com:{port}/ HTTP/1.1", f"Host: example.com:{port}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


# --- exchanges


def test_an_exchange_goes_through(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client = await proxy.client()
            await client.says(request(origin.port))
            upstream = await origin.accepts()
            asked = await upstream.gets_until(b"\r\n\r\n")
            await upstream.says(OK)
            answer = await client.gets(len(OK))
            await client.leaves()
            await until(lambda: not proxy.services.connections)

            assert asked == b"GET / HTTP/1.1\r\nHost: example.com:%d\r\n\r\n" % origin.port
            assert answer == OK
            assert await upstream.gets_rest() == b""
            assert proxy.ledger.last.upstream == f"127.0.0.1:{origin.port}"

    run(play)


def test_a_denial_resolves_and_dials_nothing(run: Run) -> None:
    async def play() -> None:
        names = Names()
        async with proxy_of(resolve=names) as proxy:
            client = await proxy.client()
            await client.says(request(80))
            answer = await client.gets_until(b"\r\n\r\n")

            assert reason_of(answer) == "no-rule"
            assert names.asked == []

    run(play)


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [([], 502, "dns-failed"), (["10.0.0.1"], 403, "address-not-allowed")],
)
def test_a_dial_that_fails_is_answered(
    run: Run, answer: list[str], status: int, reason: str
) -> None:
    async def play() -> None:
        async with proxy_of(policy=policy_for(80), resolve=Names(example_com=answer)) as proxy:
            client = await proxy.client()
            await client.says(request(80))
            told = await client.gets_until(b"\r\n\r\n")

            assert told.startswith(b"HTTP/1.1 %d " % status)
            assert reason_of(told) == reason

    run(play)


def test_a_rule_that_went_between_request_and_dial_denies(run: Run) -> None:
    async def play() -> None:
        async with proxy_of(policy=policy_for(80)) as proxy:
            await proxy.client()
            server = Server(address=("example.com", 80))
            proxy.services.gate.policy = Policy()
            with pytest.raises(DialError) as caught:
                await proxy.connection._connect(server)

            assert caught.value.failure is Failure.DENIED
            assert proxy.ledger.reasons == ["no-rule"]

    run(play)


def test_an_answer_that_breaks_off_never_looks_whole(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client = await proxy.client()
            await client.says(request(origin.port))
            upstream = await origin.accepts()
            await upstream.gets_until(b"\r\n\r\n")
            await upstream.says(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            begun = await client.gets_until(b"half\r\n")
            upstream.breaks_off()
            rest = await client.gets_rest()

            assert begun.endswith(b"\r\n\r\n4\r\nhalf\r\n")
            assert LAST_CHUNK not in rest
            assert proxy.ledger.last.error == "upstream-cut-short"

    run(play)


def test_an_answer_that_ends_well_looks_whole(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client = await proxy.client()
            await client.says(request(origin.port))
            upstream = await origin.accepts()
            await upstream.gets_until(b"\r\n\r\n")
            await upstream.says(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            await upstream.leaves()

            assert (await client.gets_until(LAST_CHUNK)).endswith(b"4\r\nhalf\r\n" + LAST_CHUNK)

    run(play)


# --- backpressure

MUCH = 32 * 1024 * 1024


def test_a_client_that_does_not_read_stops_its_origin(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client = await proxy.client()
            await client.says(request(origin.port))
            upstream = await origin.accepts()
            await upstream.gets_until(b"\r\n\r\n")
            sending = asyncio.ensure_future(
                upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MUCH + bytes(MUCH))
            )
            (endpoint,) = upstreams_of(proxy)
            await until(lambda: endpoint.is_paused)
            transport = proxy.connection.endpoint.transport
            assert transport is not None
            kept = transport.get_write_buffer_size()
            await client.gets_until(b"\r\n\r\n")
            body = await client.gets(MUCH)
            await sending

            assert kept < 2 * 1024 * 1024
            assert len(body) == MUCH
            assert not endpoint.is_paused

    run(play)


def test_an_origin_that_does_not_read_stops_its_client(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client = await proxy.client()
            await client.says(request(origin.port, "PUT", f"Content-Length: {MUCH}"))
            upstream = await origin.accepts()
            sending = asyncio.ensure_future(client.says(bytes(MUCH)))
            await until(lambda: proxy.connection.endpoint.is_paused)
            (endpoint,) = upstreams_of(proxy)
            assert endpoint.transport is not None
            kept = endpoint.transport.get_write_buffer_size()
            await upstream.gets_until(b"\r\n\r\n")
            await upstream.gets(MUCH)
            await sending

            assert kept < 2 * 1024 * 1024
            assert not proxy.connection.endpoint.is_paused

    run(play)


def upstreams_of(proxy: Proxy) -> list[Endpoint]:
    own = proxy.connection.endpoint
    return [found for found in proxy.connection._endpoints.values() if found is not own]


def test_a_layer_may_hold_a_peer(run: Run) -> None:
    def script(event: events.Event) -> Iterable[commands.Command]:
        if isinstance(event, events.DataReceived):
            yield PauseReading(event.connection, hold=True)
            yield PauseReading(Server(address=None), hold=True)  # of one that is gone

    async def play() -> None:
        async with proxy_of(scripted(script)) as proxy:
            client = await proxy.client()
            await client.says(b"one")
            await until(lambda: proxy.connection.endpoint.is_paused)
            await client.says(b"two")
            before = len(proxy.heard)
            proxy.connection._execute(PauseReading(proxy.connection.client, hold=False))
            await until(lambda: len(proxy.heard) > before)

            assert isinstance(proxy.heard[-1], events.DataReceived)
            assert proxy.heard[-1].data == b"two"

    run(play)


def test_a_client_that_should_read_while_it_sends_is_not_read_while_it_does_not(run: Run) -> None:
    def script(event: events.Event) -> Iterable[commands.Command]:
        if isinstance(event, events.DataReceived):
            yield commands.SendData(event.connection, bytes(MUCH))

    async def play() -> None:
        async with proxy_of(scripted(script)) as proxy:
            client = await proxy.client()
            proxy.connection.session.reads_while_sending = True
            await client.says(b"one")
            await until(lambda: proxy.connection.endpoint.is_paused)
            await client.gets(MUCH)
            await until(lambda: not proxy.connection.endpoint.is_paused)

    run(play)


# --- turns

FLOOD = b"GET http://denied.invalid/ HTTP/1.1\r\nHost: denied.invalid\r\n\r\n"


def test_a_pipeline_without_end_is_answered_in_turns_with_other_clients(run: Run) -> None:
    """The other's request comes last, and its decision is not the last by far."""

    async def play() -> None:
        async with proxy_of() as proxy:
            flood, other = await proxy.client(), await proxy.client()
            reading = asyncio.ensure_future(flood.gets_rest())
            await flood.says(FLOOD * 4000)
            await until(lambda: proxy.ledger.decisions)
            await other.says(b"GET http://other.invalid/ HTTP/1.1\r\nHost: other.invalid\r\n\r\n")
            await other.gets_until(b"\r\n\r\n")
            before = len(proxy.ledger.decisions)
            await until(lambda: len(proxy.ledger.decisions) == 4001)
            flood.half_closes()
            answers = await reading

            assert before < 2000
            assert answers.count(b"HTTP/1.1 403") == 4000

    run(play)


def test_bytes_that_wait_for_a_turn_keep_their_order(run: Run) -> None:
    def script(event: events.Event) -> Iterable[commands.Command]:
        if isinstance(event, events.DataReceived) and event.data.startswith(b"0"):
            yield ContinueLater()

    async def play() -> None:
        async with proxy_of(scripted(script)) as proxy:
            await proxy.client()
            connection = proxy.connection
            connection.received(connection.endpoint, b"0")
            connection.received(connection.endpoint, b"1")
            paused = [connection.endpoint.is_paused]
            connection.received(connection.endpoint, b"2" * READ_AHEAD)
            connection.ended(connection.endpoint)
            paused.append(connection.endpoint.is_paused)
            await until(lambda: isinstance(proxy.heard[-1], events.ConnectionClosed))

            kinds = [type(event) for event in proxy.heard[1:]]
            assert kinds == [
                events.DataReceived,
                TurnCame,
                events.DataReceived,
                events.DataReceived,
                events.ConnectionClosed,
            ]
            assert [*paused, connection.endpoint.is_paused] == [False, True, False]

    run(play)


def test_a_read_of_a_client_that_took_long_reaches_the_layers_in_pieces(run: Run) -> None:
    sent = bytes(range(256)) * 1000

    async def play() -> None:
        async with proxy_of(scripted(silent)) as proxy:
            await proxy.client()
            connection = proxy.connection
            connection._turns.piece = 4096
            connection._turns._split_until = math.inf
            connection.received(connection.endpoint, sent)
            await until(lambda: not connection._pending)
            pieces = [e.data for e in proxy.heard if isinstance(e, events.DataReceived)]

            assert b"".join(pieces) == sent
            assert max(map(len, pieces)) == 4096

    run(play)


def test_what_waits_for_a_turn_is_dropped_with_its_connection(run: Run) -> None:
    def script(event: events.Event) -> Iterable[commands.Command]:
        if isinstance(event, events.DataReceived):
            yield ContinueLater()

    async def play() -> None:
        async with proxy_of(scripted(script)) as proxy:
            await proxy.client()
            connection = proxy.connection
            connection.received(connection.endpoint, b"0")
            connection.received(connection.endpoint, b"1")
            connection.abort()
            heard = len(proxy.heard)
            await until(lambda: not connection._turns.has_work)

            assert len(proxy.heard) == heard
            assert not connection._pending

    run(play)


# --- what it holds, and what is shed


def test_what_is_shed_is_recorded_as_such(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client = await proxy.client()
            await client.says(request(origin.port))
            upstream = await origin.accepts()
            await upstream.gets_until(b"\r\n\r\n")
            sockets = proxy.connection.sockets
            proxy.connection.shed()
            await client.gets_rest()

            assert sockets == 2
            assert proxy.ledger.last.error == "shed"

    run(play)


def test_each_socket_is_counted_as_long_as_it_is_open(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            shares = proxy.services.shares
            client = await proxy.client()
            one = shares.open_sockets
            await client.says(request(origin.port))
            upstream = await origin.accepts()
            await upstream.gets_until(b"\r\n\r\n")
            two = shares.open_sockets
            client.breaks_off()
            await until(lambda: not shares.open_sockets)

            assert (one, two) == (1, 2)

    run(play)


def test_a_client_that_owes_a_body_and_trickles_is_slow(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client = await proxy.client()
            await client.says(request(origin.port, "POST", "Content-Length: 100000") + b"x")
            await (await origin.accepts()).gets_until(b"\r\n\r\nx")
            connection = proxy.connection
            now = connection.active_at
            standings = [connection.standing(now)[0]]
            for second, size in enumerate((1, 512, 1, 1), 1):
                connection.received(connection.endpoint, bytes(size))
                connection.sweep(now + second)
                standings.append(connection.standing(now + second)[0])

            busy, slow = Standing.BUSY, Standing.SLOW
            assert standings == [slow, slow, busy, busy, slow]

    run(play)


@pytest.mark.parametrize(
    ("waiting", "quiet_s", "standing"),
    [
        (Waiting.IDLE, 0, Standing.IDLE),
        (Waiting.HEAD, 0, Standing.IDLE),
        (Waiting.EXCHANGE, 9, Standing.BUSY),
        (Waiting.EXCHANGE, 11, Standing.SILENT),
        (Waiting.TUNNEL, 11, Standing.SILENT),
    ],
)
def test_a_connection_stands_by_what_would_be_lost_with_it(
    run: Run, waiting: Waiting, quiet_s: float, standing: Standing
) -> None:
    async def play() -> None:
        async with proxy_of(scripted(silent)) as proxy:
            await proxy.client()
            connection = proxy.connection
            connection.session.wait(waiting)
            now = connection.active_at + quiet_s

            assert connection.standing(now) == (standing, connection.active_at)

    run(play)


def test_bytes_that_a_peer_does_not_take_are_counted(run: Run) -> None:
    def script(event: events.Event) -> Iterable[commands.Command]:
        if isinstance(event, events.DataReceived):
            yield commands.SendData(event.connection, bytes(MUCH))

    async def play() -> None:
        async with proxy_of(scripted(script)) as proxy:
            client = await proxy.client()
            await client.says(b"one")
            await until(lambda: proxy.connection.waiting_bytes > MUCH // 2)
            proxy.connection.abort()

    run(play)


def test_a_dial_without_a_descriptor_is_tried_again_once_another_client_was_shed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            await proxy.client()
            idle = proxy.connection
            client = await proxy.client()
            monkeypatch.setattr(descriptors, "is_room_for_upstream", lambda *_: idle.is_ending)
            await client.says(request(origin.port))
            upstream = await origin.accepts()

            assert (await upstream.gets_until(b"\r\n\r\n")).startswith(b"GET / ")
            assert idle.is_ending

    run(play)


def test_a_dial_without_a_descriptor_is_a_503_if_nobody_can_be_shed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "is_room_for_upstream", lambda *_: False)

    async def play() -> None:
        async with proxy_of(policy=policy_for(80)) as proxy:
            client = await proxy.client()
            await client.says(request(80))
            told = await client.gets_until(b"\r\n\r\n")

            assert told.startswith(b"HTTP/1.1 503 ")
            assert reason_of(told) == "no-room"
            assert proxy.ledger.last.error == "no-room"

    run(play)


# --- what layers may ask for


def test_work_apart_is_done_and_told_to_the_layer(run: Run) -> None:
    done: list[str] = []

    def script(event: events.Event) -> Iterable[commands.Command]:
        if isinstance(event, events.Start):
            yield RunApart(lambda: done.append("done"), 1)

    async def play() -> None:
        async with proxy_of(scripted(script)) as proxy:
            await proxy.client()
            await until(lambda: isinstance(proxy.heard[-1], RanApart))

            assert done == ["done"]
            assert not proxy.connection._jobs

    run(play)
    done.clear()


def test_work_apart_is_cancelled_with_its_connection(run: Run) -> None:
    def script(event: events.Event) -> Iterable[commands.Command]:
        if isinstance(event, events.Start):
            yield RunApart(lambda: None, 1)

    async def play() -> None:
        async with proxy_of(scripted(script)) as proxy:
            await proxy.client()
            jobs = list(proxy.connection._jobs)
            proxy.connection.abort()

            assert all(job.is_cancelled for job in jobs)

    run(play)


class Silent(Names):
    """A name server that never answers."""

    async def __call__(self, host: str, port: int, _client: object = None) -> list[Address]:
        self.asked.append((host, port))
        return cast("list[Address]", await asyncio.get_running_loop().create_future())


def test_a_layer_is_woken_when_it_asks(run: Run) -> None:
    def script(event: events.Event) -> Iterable[commands.Command]:
        if isinstance(event, events.Start):
            yield commands.RequestWakeup(0)

    async def play() -> None:
        async with proxy_of(scripted(script)) as proxy:
            await proxy.client()
            await until(lambda: isinstance(proxy.heard[-1], events.Wakeup))

    run(play)


def test_nobody_is_woken_after_the_end(run: Run) -> None:
    def script(event: events.Event) -> Iterable[commands.Command]:
        if isinstance(event, events.Start):
            yield commands.RequestWakeup(3600)
            yield commands.CloseConnection(proxies[0].connection.client)

    proxies: list[Proxy] = []

    async def play() -> None:
        async with proxy_of(scripted(script)) as proxy:
            proxies.append(proxy)
            await proxy.client()

            (timer,) = proxy.connection._timers
            assert timer.cancelled()

    run(play)


def test_what_mitmproxy_would_log_is_not_printed(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """It quotes what peers sent."""

    def script(event: events.Event) -> Iterable[commands.Command]:
        if isinstance(event, events.Start):
            yield commands.Log("Authorization: secret", logging.ERROR)

    async def play() -> None:
        with caplog.at_level(logging.DEBUG):
            async with proxy_of(scripted(script)) as proxy:
                await proxy.client()

        assert "secret" not in caplog.text

    run(play)


def test_a_connection_that_a_layer_asks_for_is_opened_half_closed_and_closed(run: Run) -> None:
    server = UpstreamServer(address=("example.com", 1))

    def script(event: events.Event) -> Iterable[commands.Command]:
        if isinstance(event, events.Start):
            yield commands.OpenConnection(server)
        elif isinstance(event, events.OpenConnectionCompleted):
            yield commands.SendData(server, b"hello")
            yield commands.CloseTcpConnection(server, half_close=True)
            yield commands.CloseTcpConnection(server, half_close=True)  # once is enough
            yield commands.CloseTcpConnection(Server(address=None), half_close=True)

    async def play() -> None:
        async with Origin().listening() as origin:
            server.address = ("example.com", origin.port)
            async with proxy_of(scripted(script), policy=policy_for(origin.port)) as proxy:
                await proxy.client()
                upstream = await origin.accepts()

                assert await upstream.gets_rest() == b"hello"
                await upstream.says(b"answer")
                await until(lambda: isinstance(proxy.heard[-1], events.DataReceived))
                proxy.connection.process(events.Start())  # a second dial of the same

    run(play)


def test_a_dial_that_a_layer_gives_up_is_stopped(run: Run) -> None:
    server = Server(address=("example.com", 80))

    def script(event: events.Event) -> Iterable[commands.Command]:
        if isinstance(event, events.Start):
            yield commands.OpenConnection(server)
        elif isinstance(event, events.DataReceived):
            yield commands.CloseConnection(server)

    async def play() -> None:
        async with proxy_of(scripted(script), policy=policy_for(80), resolve=Silent()) as proxy:
            client = await proxy.client()
            (dial,) = proxy.connection._dials.values()
            await client.says(b"x")
            await until(dial.done)

            assert dial.cancelled()
            assert [type(event) for event in proxy.heard] == [events.Start, events.DataReceived]

    run(play)


def test_without_an_address_nothing_is_dialled(run: Run) -> None:
    def script(event: events.Event) -> Iterable[commands.Command]:
        if isinstance(event, events.Start):
            yield commands.OpenConnection(Server(address=None))

    async def play() -> None:
        async with proxy_of(scripted(script)) as proxy:
            await proxy.client()
            await until(lambda: isinstance(proxy.heard[-1], events.OpenConnectionCompleted))

            reply = proxy.heard[-1]
            assert isinstance(reply, events.OpenConnectionCompleted)
            assert str(reply.reply) == "no address was given"

    run(play)


# --- faults: fail closed


def faulty(event: events.Event) -> Iterable[commands.Command]:
    if isinstance(event, events.DataReceived):
        raise TypeError("Authorization: secret")
    yield from ()


def of_unknown_wishes(event: events.Event) -> Iterable[commands.Command]:
    if isinstance(event, events.DataReceived):
        yield commands.Command()


@pytest.mark.parametrize("script", [faulty, of_unknown_wishes])
def test_a_fault_ends_the_connection_and_no_other(
    run: Run, caplog: pytest.LogCaptureFixture, script: Script
) -> None:
    async def play() -> None:
        async with proxy_of(scripted(script)) as proxy:
            other = await proxy.client()
            client = await proxy.client()
            await client.says(b"x")
            ended = await client.gets_rest()

            assert ended == b""
            assert len(proxy.services.connections) == 1
            await other.leaves()

    run(play)
    (line,) = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert line.message == "a connection was closed after an internal error"
    assert line.exc_info is not None  # the formatter names its type, and shows no more of it
    assert "secret" not in line.message


def test_a_fault_in_a_dial_ends_the_connection(run: Run) -> None:
    class Broken(Names):
        async def __call__(self, host: str, port: int) -> list[object]:  # type: ignore[override]
            raise RuntimeError(f"a bug with {host}:{port}")

    async def play() -> None:
        async with proxy_of(policy=policy_for(80), resolve=Broken()) as proxy:
            client = await proxy.client()
            await client.says(request(80))

            assert await client.gets_rest() == b""

    run(play)


def test_a_socket_that_dies_under_a_dial_is_unreachable(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):

            async def refuse(*_: object, **__: object) -> None:
                raise OSError("it died")

            client = await proxy.client()
            loop = asyncio.get_running_loop()
            with contextlib.suppress(AttributeError):  # uvloop's cannot be replaced
                monkeypatch.setattr(loop, "create_connection", refuse)
                await client.says(request(origin.port))
                answer = await client.gets_until(b"\r\n\r\n")
                assert reason_of(answer) == "connect-unreachable"

    run(play)


# --- ends


def test_a_client_that_leaves_lets_its_upstream_go(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client = await proxy.client()
            await client.says(request(origin.port))
            upstream = await origin.accepts()
            client.breaks_off()

            assert (await upstream.gets_rest()).startswith(b"GET / ")
            await until(lambda: not proxy.services.connections)
            assert proxy.ledger.last.error == "client-closed"

    run(play)


def test_a_client_that_leaves_stops_its_dial(run: Run) -> None:
    async def play() -> None:
        names = Silent()
        async with proxy_of(policy=policy_for(80), resolve=names) as proxy:
            client = await proxy.client()
            await client.says(request(80))
            await until(lambda: names.asked)
            (dial,) = proxy.connection._dials.values()
            client.breaks_off()
            await until(dial.done)

            assert dial.cancelled()

    run(play)


def test_a_dial_that_comes_too_late_is_closed(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client = await proxy.client()
            await client.leaves()
            await until(lambda: proxy.connection.is_ending)
            with pytest.raises(DialError, match="the client has left"):
                await proxy.connection._connect(Server(address=("example.com", origin.port)))

            assert await (await origin.accepts()).gets_rest() == b""

    run(play)


def test_a_denied_upload_gets_its_answer_though_it_reads_late(run: Run) -> None:
    async def play() -> None:
        async with proxy_of() as proxy:
            client = await proxy.client()
            await client.says(request(80, "POST", "Content-Length: 4000000"))
            await until(lambda: proxy.connection.is_ending)
            await client.says(bytes(4_000_000))
            client.half_closes()
            answer = await client.gets_rest()
            await until(lambda: not proxy.services.connections)

            assert reason_of(answer) == "no-rule"
            assert answer.endswith(b"\n")

    run(play)


def close_at_once(event: events.Event) -> Iterable[commands.Command]:
    if isinstance(event, (events.DataReceived, events.ConnectionClosed)):
        yield commands.CloseConnection(event.connection)


def test_a_second_close_does_not_cut_the_last_bytes_off(run: Run) -> None:
    async def play() -> None:
        async with proxy_of(scripted(close_at_once)) as proxy:
            client = await proxy.client()
            await client.says(b"x")
            await until(lambda: proxy.connection.is_ending)
            transport = proxy.connection.endpoint.transport

            assert transport is not None
            assert not transport.is_closing()
            assert await client.gets_rest() == b""

    run(play)


def test_an_upload_without_end_is_cut_off(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_LINGER_BYTES", 1000)

    async def play() -> None:
        async with proxy_of(scripted(close_at_once)) as proxy:
            client = await proxy.client()
            await client.says(b"x")
            await until(lambda: proxy.connection.is_ending)
            with contextlib.suppress(ConnectionError):
                await client.says(bytes(100_000))
            await until(lambda: not proxy.services.connections)

    run(play)


def test_a_client_that_lingers_too_long_is_cut_off(run: Run) -> None:
    async def play() -> None:
        async with proxy_of(scripted(close_at_once)) as proxy:
            client = await proxy.client()
            await client.says(b"x")
            await until(lambda: proxy.connection.is_ending)
            now = asyncio.get_running_loop().time()
            proxy.connection.sweep(now)
            before = len(proxy.services.connections)
            proxy.connection.sweep(now + 3600)
            await until(lambda: not proxy.services.connections)

            assert before == 1

    run(play)


def test_a_held_client_that_is_closed_is_read_to_its_end(run: Run) -> None:
    def script(event: events.Event) -> Iterable[commands.Command]:
        if isinstance(event, events.DataReceived):
            yield PauseReading(event.connection, hold=True)
            yield commands.CloseConnection(event.connection)

    async def play() -> None:
        async with proxy_of(scripted(script)) as proxy:
            client = await proxy.client()
            await client.says(b"x")
            await until(lambda: proxy.connection.is_ending)
            await client.says(bytes(4_000_000))
            await client.leaves()
            await until(lambda: not proxy.services.connections)

    run(play)


def test_a_half_closed_client_is_closed_without_lingering(run: Run) -> None:
    async def play() -> None:
        async with proxy_of(scripted(close_at_once)) as proxy:
            client = await proxy.client()
            client.half_closes()
            await until(lambda: not proxy.services.connections)

            assert await client.gets_rest() == b""

    run(play)


def test_bytes_that_an_upstream_does_not_take_are_thrown_away_in_the_end(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_LINGER_S", 0)

    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client = await proxy.client()
            await client.says(request(origin.port, "PUT", f"Content-Length: {MUCH}"))
            sending = asyncio.ensure_future(client.says(bytes(MUCH)))
            await origin.accepts()
            await until(lambda: any(found.is_congested for found in upstreams_of(proxy)))
            (endpoint,) = upstreams_of(proxy)
            transport = endpoint.transport
            assert transport is not None
            kept = transport.get_write_buffer_size()
            proxy.connection._close_connection(proxy.connection.client)
            await until(lambda: not transport.get_write_buffer_size())
            sending.cancel()

            assert kept

    run(play)


def test_a_client_that_broke_off_while_it_was_held_is_noticed(run: Run) -> None:
    async def play() -> None:
        async with proxy_of(scripted(silent)) as proxy:
            client = await proxy.client()
            proxy.connection._execute(PauseReading(proxy.connection.client, hold=True))
            now = asyncio.get_running_loop().time()
            proxy.connection.sweep(now)
            before = len(proxy.services.connections)
            client.breaks_off()
            while proxy.services.connections:
                proxy.connection.sweep(now)
                await asyncio.sleep(0)

            assert before == 1

    run(play)


# --- time


@pytest.mark.parametrize(
    ("waiting", "limit_s"),
    [
        (Waiting.HEAD, 1),
        (Waiting.HANDSHAKE, 2),
        (Waiting.UPSTREAM, 2),  # once it is connected
        (Waiting.IDLE, 8),
        (Waiting.BODY, 8),
        (Waiting.EXCHANGE, 8),
        (Waiting.TUNNEL, 8),
    ],
)
def test_each_wait_has_a_limit_of_its_own(run: Run, waiting: Waiting, limit_s: int) -> None:
    limits = Limits(head_timeout_s=1, handshake_timeout_s=2, connect_timeout_s=4, idle_timeout_s=8)

    async def play() -> None:
        async with proxy_of(scripted(silent), limits=limits) as proxy:
            await proxy.client()
            proxy.connection.session.wait(waiting)
            now = asyncio.get_running_loop().time()
            proxy.connection.sweep(now)
            proxy.connection.sweep(now + limit_s - 0.5)
            in_time = list(proxy.heard)
            proxy.connection.sweep(now + limit_s + 0.5)

            assert [type(event) for event in in_time] == [events.Start]
            assert [type(event) for event in proxy.heard[1:]] == [TimedOut, events.ConnectionClosed]

    run(play)


def test_the_handshake_with_an_upstream_has_the_time_that_the_pages_say(run: Run) -> None:
    limits = Limits(handshake_timeout_s=2, connect_timeout_s=4)

    async def play() -> None:
        async with proxy_of(scripted(silent), limits=limits) as proxy:
            await proxy.client()
            connection, now = proxy.connection, asyncio.get_running_loop().time()
            connection.session.wait(Waiting.UPSTREAM)
            connection._dials[connection.client] = asyncio.ensure_future(asyncio.sleep(0))
            connection.sweep(now)
            connection.sweep(now + 3.5)
            connection._dials.clear()
            connection._connected_at = now + 3.9
            connection.sweep(now + 5.5)
            in_time = connection.is_ending
            connection.sweep(now + 6)

            assert (in_time, connection.is_ending) == (False, True)

    run(play)


def test_bytes_put_an_idle_end_off_but_not_a_slow_heads(run: Run) -> None:
    limits = Limits(head_timeout_s=5, idle_timeout_s=5)

    async def play() -> None:
        async with proxy_of(scripted(silent), limits=limits) as proxy:
            await proxy.client()
            session, now = proxy.connection.session, asyncio.get_running_loop().time()
            session.wait(Waiting.EXCHANGE)
            proxy.connection.sweep(now)
            proxy.connection.active_at = now + 4
            proxy.connection.sweep(now + 8)
            alive = not proxy.connection.is_ending
            session.wait(Waiting.HEAD)
            proxy.connection.sweep(now + 8)
            proxy.connection.active_at = now + 12
            proxy.connection.sweep(now + 14)

            assert alive
            assert proxy.connection.is_ending

    run(play)


def test_a_body_that_trickles_in_gives_its_room_to_others_where_that_is_scarce(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "_HELD_LIMIT", 1000)
    limits = Limits(head_timeout_s=5, idle_timeout_s=50)

    async def play() -> None:
        async with proxy_of(scripted(silent), limits=limits) as proxy:
            await proxy.client()
            connection, gate = proxy.connection, proxy.services.gate
            now = asyncio.get_running_loop().time()
            connection.session.wait(Waiting.BODY)
            connection.sweep(now)
            connection.active_at = now + 40
            connection.sweep(now + 41)
            alive = not connection.is_ending
            gate.hold(Attempt(Verdict(FAULT), 1, 0.0), 501)
            connection.sweep(now + 41)

            assert alive
            assert connection.is_ending

    run(play)


def test_an_upstream_that_answers_nothing_does_not_keep_an_idle_client(run: Run) -> None:
    """HTTP/2 is pinged, and its answers are no use to anybody."""

    async def play() -> None:
        async with proxy_of(scripted(silent)) as proxy:
            await proxy.client()
            connection = proxy.connection
            upstream = Endpoint(connection, Server(address=None))
            connection.active_at = 0.0
            connection.session.wait(Waiting.IDLE)
            connection.received(upstream, b"pong")
            idle = connection.active_at
            connection.session.wait(Waiting.EXCHANGE)
            connection.received(upstream, b"data")

            assert idle == 0.0
            assert connection.active_at > 0.0

    run(play)


# --- a policy that changes, a proxy that stops


def test_a_tunnel_is_closed_once_its_rule_is_gone(run: Run) -> None:
    async def play() -> None:
        async with proxy_of(scripted(silent), policy=policy_of("allow: [example.com]")) as proxy:
            await proxy.client()
            connection = proxy.connection
            without_target = connection.withdraw()
            connection.session.target = Authority.of("example.com", 443)
            kept = connection.withdraw()
            proxy.services.gate.policy = Policy()
            closed = connection.withdraw()
            again = connection.withdraw()

            assert (without_target, kept, closed, again) == (False, False, True, False)
            kinds = [type(event) for event in proxy.heard]
            assert kinds == [events.Start, RuleRevoked, events.ConnectionClosed]
            assert proxy.ledger.reasons == ["rule-withdrawn"]

    run(play)


def test_a_passthrough_tunnel_is_closed_once_its_host_is_to_be_intercepted(run: Run) -> None:
    opaque = policy_of("allow: [{host: example.com, tls: passthrough}]")
    seen = policy_of("allow: [{host: example.com, paths: [/ok]}]")

    async def play() -> None:
        async with proxy_of(scripted(silent), policy=opaque) as proxy:
            await proxy.client()
            session = proxy.connection.session
            session.target, session.passthrough = Authority.of("example.com", 443), True
            kept = proxy.connection.withdraw()
            proxy.services.gate.policy = seen

            assert (kept, proxy.connection.withdraw()) == (False, True)

    run(play)


@pytest.mark.parametrize(
    "after", ["allow: []", "allow: [{host: example.com, scheme: http, paths: [/x]}]"]
)
def test_a_websocket_is_closed_once_its_request_is_not_allowed(run: Run, after: str) -> None:
    """Also one without TLS, which has no tunnel."""
    target = Authority.of("example.com", 80)

    async def play() -> None:
        before = policy_of("allow: [{host: example.com, scheme: http}]")
        async with proxy_of(scripted(silent), policy=before) as proxy:
            await proxy.client()
            proxy.connection.session.websocket_request = Request(
                Scheme.HTTP, target, target, "GET", "/chat"
            )
            kept = proxy.connection.withdraw()
            proxy.services.gate.policy = policy_of(after)

            assert (kept, proxy.connection.withdraw()) == (False, True)

    run(play)


@pytest.mark.parametrize(
    ("waiting", "closed"),
    [
        (Waiting.IDLE, True),
        (Waiting.HEAD, True),
        (Waiting.HANDSHAKE, True),
        (Waiting.UPSTREAM, False),
        (Waiting.BODY, False),
        (Waiting.EXCHANGE, False),
        (Waiting.TUNNEL, False),
    ],
)
def test_a_proxy_that_stops_closes_what_is_idle(
    run: Run, waiting: Waiting, *, closed: bool
) -> None:
    async def play() -> None:
        async with proxy_of(scripted(silent)) as proxy:
            await proxy.client()
            proxy.connection.session.wait(waiting)
            in_progress = proxy.connection.shut(proxy.connection.active_at)

            assert proxy.connection.session.closing
            assert proxy.connection.is_ending is closed
            assert in_progress is not closed

    run(play)


@pytest.mark.parametrize(("quiet_s", "closed"), [(1.9, False), (2.1, True)])
def test_a_proxy_that_stops_closes_a_tunnel_once_it_is_quiet(
    run: Run, quiet_s: float, *, closed: bool
) -> None:
    async def play() -> None:
        async with proxy_of(scripted(silent)) as proxy:
            await proxy.client()
            proxy.connection.session.wait(Waiting.TUNNEL)
            in_progress = proxy.connection.shut(proxy.connection.active_at + quiet_s)

            assert proxy.connection.is_ending is closed
            assert in_progress is not closed

    run(play)


def test_a_client_that_does_not_close_does_not_hold_up_a_stop(run: Run) -> None:
    async def play() -> None:
        async with proxy_of(scripted(silent)) as proxy:
            await proxy.client()
            proxy.connection.session.wait(Waiting.IDLE)
            proxy.connection.shut(proxy.connection.active_at)

            assert proxy.services.connections
            assert not proxy.connection.shut(proxy.connection.active_at)

    run(play)


def test_a_stop_does_not_discard_a_response_that_is_still_being_delivered(run: Run) -> None:
    async def play() -> None:
        async with proxy_of(scripted(silent)) as proxy:
            client = await proxy.client()
            transport = proxy.connection.endpoint.transport
            assert transport is not None
            transport.write(b"a response")
            proxy.connection.session.wait(Waiting.IDLE)
            proxy.connection.shut(proxy.connection.active_at)
            proxy.connection.drop()

            assert await client.gets_rest() == b"a response"

    run(play)


def test_an_aborted_connection_makes_room_at_once(run: Run) -> None:
    async def play() -> None:
        async with proxy_of(scripted(silent)) as proxy:
            client = await proxy.client()
            proxy.connection.abort()

            assert not proxy.services.connections
            assert await client.gets_rest() == b""

    run(play)


def test_no_worker_has_a_connection_number_of_another() -> None:
    workers = [connection_numbers(worker, 3) for worker in range(3)]

    numbers = [next(each) for each in workers for _ in range(100)]

    assert len(set(numbers)) == 300
    assert [number % 3 for number in numbers] == [0] * 100 + [1] * 100 + [2] * 100


# --- TLS with upstreams


def test_its_tls_is_of_the_client_and_of_the_credential_with_its_value(run: Run) -> None:
    async def play() -> None:
        async with proxy_of() as proxy:
            purse = Purse()
            proxy.services.gate = Gate(Policy(), proxy.ledger.events.append, secret_provider=purse)
            await proxy.client()
            owners = []
            for value in (b"old", b"old", b"new"):
                purse.secrets = {"api": Secret(value)}
                owners += [_tls_owner(proxy, name) for name in ("api", "other", None)]

            assert owners[:3] == owners[3:6]
            assert owners[6] not in owners[:6]
            assert owners[7:] == owners[1:3]
            assert len(set(owners)) == 4

    run(play)


class Purse(NoSecrets):
    """A provider whose secrets a test changes."""

    secrets: AvailableSecrets


def _tls_owner(proxy: Proxy, credential: str | None) -> object:
    verdict = Verdict(FAULT, CredentialDecision(credential=credential))
    return proxy.connection.session.tls_for(Attempt(verdict, 1, 0.0)).owner
