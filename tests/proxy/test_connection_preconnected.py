"""The connection that SOCKS5 opens before its reply is used once, or closed."""

import asyncio
import socket

import pytest

from claude_proxy.policy.policy import Policy
from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.layers.upstream import UpstreamServer
from claude_proxy.wire.address import Address
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.socks5 import SocksReply, reply
from tests.proxy.layers.http1_peers import OK
from tests.proxy.test_connection import Proxy, policy_for, proxy_of
from tests.support.loopback import LOOPS, Names, Origin, Play, Run, Stream, run_on, until

GREETING, NO_LOGIN = b"\x05\x01\x00", b"\x05\x00"
GRANTED = reply(SocksReply.GRANTED)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Return a function that plays a coroutine function on one of the two loops."""

    def play_on_loop(play: Play) -> None:
        run_on(request.param, play)

    return play_on_loop


def ask(port: int) -> bytes:
    return GREETING + b"\x05\x01\x00\x03\x0bexample.com" + port.to_bytes(2)


def get(port: int) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: example.com:{port}\r\n\r\n".encode()


async def tunnel(proxy: Proxy, origin: Origin) -> tuple[Stream, Stream]:
    """Return a client whose tunnel is open, and the upstream's end of it."""
    client = await proxy.client()
    await client.says(ask(origin.port))
    assert await client.gets(12) == NO_LOGIN + GRANTED
    return client, await origin.accepts()


def test_the_connection_that_the_reply_told_of_is_the_one_that_is_used(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client, upstream = await tunnel(proxy, origin)
            await client.says(get(origin.port))
            asked = await upstream.gets_until(b"\r\n\r\n")
            await upstream.says(OK)
            answer = await client.gets(len(OK))
            await client.leaves()
            await until(lambda: not proxy.services.connections)

            assert (asked, answer) == (get(origin.port), OK)
            assert await upstream.gets_rest() == b""
            assert origin.streams.empty()
            assert proxy.ledger.last.upstream == f"127.0.0.1:{origin.port}"

    run(play)


def test_everything_may_be_sent_in_one_piece_and_the_client_may_say_no_more(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client = await proxy.client()
            await client.says(ask(origin.port) + get(origin.port))
            client.half_closes()
            upstream = await origin.accepts()
            asked = await upstream.gets_until(b"\r\n\r\n")
            await upstream.says(OK)

            assert asked == get(origin.port)
            assert await client.gets_rest() == NO_LOGIN + GRANTED + OK

    run(play)


@pytest.mark.parametrize("last_words", [b"", b"SSH-2.0-x\r\n", b"\x16\x03\x01\x00\x05hello"])
def test_a_client_that_is_let_go_takes_the_connection_along(run: Run, last_words: bytes) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client, upstream = await tunnel(proxy, origin)
            if last_words:
                await client.says(last_words)
            else:
                await client.leaves()

            assert await upstream.gets_rest() == b""
            await client.leaves()
            await until(lambda: not proxy.services.connections)

    run(play)


@pytest.mark.parametrize("spoils", ["leaves", "breaks off", "speaks"])
def test_a_connection_that_closes_before_its_use_is_replaced(run: Run, spoils: str) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client, upstream = await tunnel(proxy, origin)
            match spoils:
                case "leaves":
                    await upstream.leaves()
                case "breaks off":
                    upstream.breaks_off()
                case _:
                    await upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await until(lambda: proxy.connection.session.preconnected is None)
            await client.says(get(origin.port))
            second = await origin.accepts()
            asked = await second.gets_until(b"\r\n\r\n")
            await second.says(OK)

            assert asked == get(origin.port)
            assert await client.gets(len(OK)) == OK
            assert await upstream.gets_rest() == b""

    run(play)


def test_a_connection_of_another_kind_is_not_used(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            _, upstream = await tunnel(proxy, origin)
            spare = proxy.connection.session.preconnected
            assert spare is not None
            other = UpstreamServer(address=spare.address, tunnel=not spare.tunnel)  # type: ignore[attr-defined]
            await proxy.connection._connect(other)

            assert await upstream.gets_rest() == b""
            await origin.accepts()

    run(play)


def test_a_rule_that_went_before_the_connection_was_used_denies(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client, upstream = await tunnel(proxy, origin)
            proxy.services.gate.policy = Policy()
            server = UpstreamServer(address=("example.com", origin.port), tunnel=False)
            with pytest.raises(DialError) as caught:
                await proxy.connection._connect(server)
            proxy.connection.withdraw()

            assert caught.value.failure is Failure.DENIED
            assert await upstream.gets_rest() == b""
            assert await client.gets_rest() == b""

    run(play)


@pytest.mark.parametrize(
    ("found", "code"), [([], SocksReply.UNREACHABLE), (["10.0.0.1"], SocksReply.DENIED)]
)
def test_a_dial_that_fails_is_told_in_the_reply(
    run: Run, found: list[str], code: SocksReply
) -> None:
    async def play() -> None:
        async with proxy_of(policy=policy_for(80), resolve=Names(example_com=found)) as proxy:
            client = await proxy.client()
            await client.says(ask(80))

            assert await client.gets_rest() == NO_LOGIN + reply(code)

    run(play)


def test_a_refused_connection_is_told_in_the_reply(run: Run) -> None:
    async def play() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and does not listen
            port = taken.getsockname()[1]
            async with proxy_of(policy=policy_for(port)) as proxy:
                client = await proxy.client()
                await client.says(ask(port))

                assert await client.gets_rest() == NO_LOGIN + reply(SocksReply.REFUSED)

    run(play)


def test_the_proxy_itself_is_not_reached(run: Run) -> None:
    async def play() -> None:
        async with proxy_of() as proxy:
            proxy.services.gate.policy = policy_for(proxy.port)
            proxy.services.dialer.own.add(Authority.of("127.0.0.1", proxy.port))
            client = await proxy.client()
            await client.says(ask(proxy.port))

            assert await client.gets_rest() == NO_LOGIN + reply(SocksReply.DENIED)
            assert proxy.ledger.last.error == "proxy-loop"
            assert len(proxy.made) == 1

    run(play)


class Silence(Names):
    """A name server that never answers, and notices when nobody waits any more."""

    def __init__(self) -> None:
        super().__init__()
        self.given_up = False

    async def __call__(self, host: str, port: int, _client: object = None) -> list[Address]:
        self.asked.append((host, port))
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up = True
        raise AssertionError("it never answers")


def test_a_client_that_breaks_off_ends_the_dial(run: Run) -> None:
    async def play() -> None:
        names = Silence()
        async with proxy_of(policy=policy_for(80), resolve=names) as proxy:
            client = await proxy.client()
            await client.says(ask(80))
            await until(lambda: names.asked)
            client.breaks_off()
            loop = asyncio.get_running_loop()

            def swept() -> bool:
                # A client that is not read from is missed only by looking.
                proxy.connection.sweep(loop.time())
                return names.given_up

            await until(swept)
            await until(lambda: not proxy.services.connections)

            assert proxy.ledger.last.error == "client-closed"

    run(play)
