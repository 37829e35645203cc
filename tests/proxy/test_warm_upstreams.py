"""What waits for the next request breaks no law: judged again, one client's, bounded, recorded."""

import asyncio
import socket
from dataclasses import replace
from ipaddress import ip_address

import pytest

from claude_proxy.events import Notice
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.policy import Policy
from claude_proxy.proxy.shares import MEMORY, SOCKETS
from claude_proxy.proxy.warm_keys import MOST_OF_OWNER, Key, Owner
from claude_proxy.proxy.warm_upstreams import SILENT_S, Beneficiary
from claude_proxy.system import descriptors
from claude_proxy.wire.address import Address
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.http1_peers import OK
from tests.proxy.test_connection import Proxy, proxy_of, request
from tests.proxy.warm_rig import CLIENT, Pool, kept, policy_for
from tests.support.loopback import LOOPS, Names, Origin, Play, Run, Stream, run_on, until


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Return a function that plays a coroutine function on one of the two loops."""

    def play_on_loop(play: Play) -> None:
        run_on(request.param, play)

    return play_on_loop


# --- what it is for


def test_it_is_the_connection_that_is_handed_over(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            upstream = await kept(pool, origin)
            taken = pool.take()
            assert taken is not None
            taken.says(b"hello")

            assert await upstream.gets(5) == b"hello"
            assert taken.upstream.address == f"127.0.0.1:{origin.port}"
            assert len(pool.warm) == 0
            taken.leaves()

    run(play)


def test_there_is_one_for_each_key(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            pool.keep()
            pool.keep()
            await pool.is_ready()
            pool.keep()
            upstream = await origin.accepts()
            taken = pool.take()

            assert taken is not None
            assert pool.take() is None
            assert origin.streams.empty()
            taken.leaves()
            assert await upstream.gets_rest() == b""

    run(play)


def test_a_burst_that_found_none_has_as_many_next_time(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            assert [pool.take() for _ in range(3)] == [None] * 3
            pool.keep()
            await pool.is_ready(3)
            taken = [pool.take() for _ in range(3)]

            assert None not in taken
            assert len({each.endpoint for each in taken if each is not None}) == 3
            for each in filter(None, taken):
                each.leaves()

    run(play)


def test_requests_that_come_one_by_one_have_one(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            for _ in range(3):
                pool.keep()
                await pool.is_ready()
                taken = pool.take()
                assert taken is not None
                taken.leaves()
            pool.keep()

            assert len(pool.warm) == 1
            pool.warm.close()

    run(play)


def test_only_the_first_of_a_target_takes_the_place_of_anothers(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            others = [
                pool.key._replace(credential=f"other-{number}")
                for number in range(MOST_OF_OWNER - 1)
            ]
            for key in others:
                pool.keep(key)
            await pool.is_ready(MOST_OF_OWNER - 1)
            for _ in range(3):
                pool.take()
            pool.keep()
            await pool.is_ready(MOST_OF_OWNER)

            left = [pool.take(key) for key in others]
            assert None not in left
            for each in filter(None, left):
                each.leaves()
            pool.warm.close()

    run(play)


def test_one_that_is_still_dialled_is_not_handed_over(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            pool.keep()

            assert pool.take() is None
            await pool.is_ready()
            pool.warm.close()

    run(play)


# --- judged is dialled


class Moving(Names):
    """Resolves to what a test says last."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses = ["127.0.0.1"]

    async def __call__(self, host: str, port: int, _client: object = None) -> list[Address]:
        self.asked.append((host, port))
        return [ip_address(address) for address in self.addresses]


def test_a_name_that_moves_while_it_waits_does_not_move_the_connection(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            names = Moving()
            pool = Pool(origin.port, names=names)
            await kept(pool, origin)
            names.addresses = ["169.254.169.254"]
            taken = pool.take()

            assert taken is not None
            assert taken.upstream.address == f"127.0.0.1:{origin.port}"
            assert len(names.asked) == 1
            taken.leaves()

    run(play)


@pytest.mark.parametrize("found", [["169.254.169.254"], ["127.0.0.1", "169.254.169.254"]])
def test_a_name_that_resolves_to_what_is_not_allowed_gives_none_and_no_denial(
    run: Run, found: list[str]
) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            names = Moving()
            names.addresses = found
            pool = Pool(origin.port, names=names)
            pool.keep()
            await pool.is_empty()

            assert pool.recorded == []
            assert origin.streams.empty()

    run(play)


def test_an_address_that_has_become_one_of_this_proxy_is_not_used(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            upstream = await kept(pool, origin)
            pool.dialer.own.add(Authority.of("127.0.0.1", origin.port))

            assert pool.take() is None
            assert await upstream.gets_rest() == b""

    run(play)


# --- rules, credentials and clients that change


@pytest.mark.parametrize("then", ["is taken", "is swept"])
@pytest.mark.parametrize("change", ["withdrawn", "denied", "the same"])
def test_another_policy_closes_it_even_one_that_says_the_same(
    run: Run, change: str, then: str
) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            upstream = await kept(pool, origin)
            pool.gate.policy = {
                "withdrawn": Policy(),
                "denied": policy_for(origin.port, denied="deny: [example.com]"),
                "the same": policy_for(origin.port),
            }[change]
            if then == "is taken":
                assert pool.take() is None
            else:
                pool.warm.sweep()

            assert len(pool.warm) == 0
            assert await upstream.gets_rest() == b""

    run(play)


def test_a_policy_that_changes_during_the_dial_ends_it(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            pool.keep()
            pool.gate.policy = policy_for(origin.port)
            await pool.is_empty()

            assert pool.notices == []

    run(play)


@pytest.mark.parametrize("value", [Secret(b"new"), None])
@pytest.mark.parametrize("then", ["is taken", "is swept"])
def test_a_rotated_credential_closes_it(run: Run, value: Secret | None, then: str) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            pool.secrets.values["api"] = Secret(b"old")
            pool.key = pool.key._replace(credential="api")
            upstream = await kept(pool, origin)
            pool.secrets.values["api"] = value
            if then == "is taken":
                assert pool.take() is None
            else:
                pool.warm.sweep()

            assert len(pool.warm) == 0
            assert await upstream.gets_rest() == b""

    run(play)


def test_a_credential_that_is_read_again_and_is_the_same_keeps_it(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            pool.secrets.values["api"] = Secret(b"same")
            pool.key = pool.key._replace(credential="api")
            await kept(pool, origin)
            pool.secrets.values["api"] = Secret(b"same")
            pool.warm.sweep()
            taken = pool.take()

            assert taken is not None
            taken.leaves()

    run(play)


def others_of(key: Key) -> dict[str, Key]:
    route = key.route
    target = Authority.of("example.com", route.target.port + 1)
    return {
        "credential": key._replace(credential="api"),
        "client": key._replace(owner=Owner("tcp", "127.0.0.2", None)),
        "run": key._replace(owner=Owner("tcp", "127.0.0.1", "run1")),
        "listener": key._replace(owner=Owner("unix", "127.0.0.1", None)),
        "port": key._replace(route=route._replace(target=target)),
        "scheme": key._replace(route=route._replace(tls=True)),
        "protocol": key._replace(route=route._replace(alpn=(b"h2",))),
        "way": key._replace(route=route._replace(tunnel=True)),
    }


@pytest.mark.parametrize(
    "other", ["credential", "client", "run", "listener", "port", "scheme", "protocol", "way"]
)
def test_no_other_gets_it(run: Run, other: str) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            await kept(pool, origin)

            assert pool.take(others_of(pool.key)[other]) is None
            assert len(pool.warm) == 1
            pool.warm.close()

    run(play)


def test_the_gate_of_another_listener_does_not_get_it(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            upstream = await kept(pool, origin)
            other = pool.gate_of(pool.gate.policy)

            assert pool.warm.take(pool.key, other) is None
            assert await upstream.gets_rest() == b""

    run(play)


def test_the_end_of_a_run_closes_it(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            is_over = False
            pool.keep(client=replace(pool.client, is_gone=lambda: is_over))
            await pool.is_ready()
            upstream = await origin.accepts()
            pool.warm.sweep()
            assert len(pool.warm) == 1
            is_over = True
            pool.warm.sweep()

            assert len(pool.warm) == 0
            assert await upstream.gets_rest() == b""

    run(play)


# --- upstreams that fail


def test_an_upstream_that_speaks_first_gets_no_other_for_a_while(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            upstream = await kept(pool, origin)
            await upstream.says(b"220 ready\r\n")
            await pool.is_empty()
            pool.keep()
            assert len(pool.warm) == 0
            pool.now_s += 3600
            pool.keep()

            await pool.is_ready()
            pool.warm.close()

    run(play)


def test_one_that_cannot_be_opened_is_not_tried_again_at_once(run: Run) -> None:
    async def play() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and does not listen
            pool = Pool(taken.getsockname()[1])
            pool.keep()
            await pool.is_empty()
            pool.keep()

            assert len(pool.warm) == 0

    run(play)


# --- bounds


def test_silence_closes_it(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            upstream = await kept(pool, origin)
            pool.now_s += SILENT_S
            pool.warm.sweep()
            assert len(pool.warm) == 1
            pool.now_s += 1

            assert pool.take() is None
            assert await upstream.gets_rest() == b""

    run(play)


def test_one_that_the_upstream_closes_out_of_patience_is_replaced_for_the_rest_of_the_time(
    run: Run,
) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            upstream = await kept(pool, origin)
            pool.now_s += 60
            await upstream.leaves()
            await origin.accepts()
            await pool.is_ready()
            pool.now_s += SILENT_S - 60 + 1
            pool.warm.sweep()

            assert len(pool.warm) == 0

    run(play)


@pytest.mark.parametrize(
    "why", ["at once", "after the time", "too often", "of a client that left", "withdrawn"]
)
def test_one_that_the_upstream_closes_is_not_replaced(run: Run, why: str) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            has_left = False
            pool.client = replace(pool.client, is_gone=lambda: has_left)
            upstream = await kept(pool, origin)
            pool.now_s += 1 if why == "at once" else 15
            if why == "too often":
                for _ in range(4):
                    await upstream.leaves()
                    upstream = await origin.accepts()
                    await pool.is_ready()
                    pool.now_s += 15
            elif why == "after the time":
                pool.now_s += SILENT_S
            elif why == "withdrawn":
                pool.gate.policy = Policy()
            has_left = why == "of a client that left"
            await upstream.leaves()
            await pool.is_empty()

            assert origin.streams.empty()

    run(play)


class Silence(Names):
    """A name server that never answers."""

    async def __call__(self, host: str, port: int, _client: object = None) -> list[Address]:
        self.asked.append((host, port))
        await asyncio.Event().wait()
        raise AssertionError("it never answers")


def test_a_dial_that_hangs_is_given_up_with_it(run: Run) -> None:
    async def play() -> None:
        names = Silence()
        pool = Pool(80, names=names)
        pool.keep()
        await until(lambda: names.asked)
        assert pool.shares.open_sockets == 1
        pool.warm.close()

        await until(lambda: pool.shares.open_sockets == 0)

    run(play)


def test_a_client_has_a_bounded_number(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            for number in range(MOST_OF_OWNER + 2):
                pool.keep(pool.key._replace(credential=f"c{number}"))
            await pool.is_ready(MOST_OF_OWNER)

            assert pool.take(pool.key._replace(credential="c0")) is None
            pool.warm.close()

    run(play)


def test_it_gives_way_where_sockets_run_short(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            upstream = await kept(pool, origin)
            shares = pool.shares
            share = shares.of("another")
            assert shares.open_sockets == 1
            assert not shares.make_room(MEMORY, share, "no memory")
            assert len(pool.warm) == 1

            assert shares.make_room(SOCKETS, share, "no sockets")
            assert len(pool.warm) == 0
            assert await upstream.gets_rest() == b""
            await until(lambda: shares.open_sockets == 0)
            assert not shares.make_room(SOCKETS, share, "no sockets")

    run(play)


def test_none_is_opened_where_sockets_are_short(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "limit", lambda: 128)

    async def play() -> None:
        pool = Pool(80)
        pool.shares.other_files = 64
        pool.keep()

        assert len(pool.warm) == 0

    run(play)


def test_none_is_opened_once_the_proxy_stops(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            upstream = await kept(pool, origin)
            pool.warm.close()
            assert await upstream.gets_rest() == b""
            pool.keep()

            assert len(pool.warm) == 0

    run(play)


# --- recorded or denied


def test_each_one_is_in_the_record_with_the_run_that_it_is_for(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            pool.keep(client=Beneficiary(pool.gate, CLIENT.of_run("run r1: curl", "r1"), "share"))
            await pool.is_ready()
            (notice,) = pool.recorded
            assert isinstance(notice, Notice)

            assert (notice.kind, notice.run) == ("warm-upstream", "r1")
            address = f"127.0.0.1:{origin.port}"
            expected = f"example.com:{origin.port} at {address} for the next request of run r1"
            assert notice.text == expected
            pool.warm.close()

    run(play)


def test_what_cannot_be_recorded_is_not_kept(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            pool.disk_is_full = True
            pool.keep()
            await pool.is_empty()

            assert await (await origin.accepts()).gets_rest() == b""

    run(play)


# --- with clients


async def exchange(proxy: Proxy, origin: Origin, answer: bytes = OK) -> Stream:
    """Return a client that was answered on a connection that was dialled."""
    client = await proxy.client()
    await client.says(request(origin.port))
    upstream = await origin.accepts()
    await upstream.gets_until(b"\r\n\r\n")
    await upstream.says(answer)
    await client.gets(len(answer))
    return client


def warm_proxy(proxy: Proxy) -> Pool:
    """Have a proxy keep connections ready."""
    pool = Pool(1)
    pool.warm = pool.of(proxy.services)
    proxy.services.warm = pool.warm
    return pool


def test_the_next_client_gets_a_connection_that_was_open_and_unused(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            pool = warm_proxy(proxy)
            await exchange(proxy, origin)  # and stays
            await pool.is_ready()
            waiting = await origin.accepts()
            second = await proxy.client()
            await second.says(request(origin.port))
            asked = await waiting.gets_until(b"\r\n\r\n")
            await waiting.says(OK)

            assert asked.startswith(b"GET / HTTP/1.1\r\n")
            assert await second.gets(len(OK)) == OK
            assert proxy.ledger.last.upstream == f"127.0.0.1:{origin.port}"
            await pool.is_ready()  # the next one
            pool.warm.close()

    run(play)


def test_no_host_gets_one_that_no_allowed_request_asked_for(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin, proxy_of(policy=policy_for(1)) as proxy:
            pool = warm_proxy(proxy)
            client = await proxy.client()
            await client.says(request(origin.port))
            await client.gets_until(b"\r\n\r\n")

            assert len(pool.warm) == 0

    run(play)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_an_upstream_that_is_busy_or_serves_one_at_a_time_gets_none(
    run: Run, answer: bytes
) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            pool = warm_proxy(proxy)
            client = await proxy.client()
            await client.says(request(origin.port))
            upstream = await origin.accepts()
            await upstream.gets_until(b"\r\n\r\n")
            await upstream.says(answer)
            await client.gets_until(b"\r\n\r\n")

            assert len(pool.warm) == 0

    run(play)


def test_a_client_that_keeps_its_connection_needs_no_other(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            pool = warm_proxy(proxy)
            client = await proxy.client()
            await client.says(request(origin.port))
            upstream = await origin.accepts()
            await upstream.gets_until(b"\r\n\r\n")
            await upstream.says(OK)
            await client.gets(len(OK))
            await pool.is_ready()
            pool.warm.shed()
            await client.says(request(origin.port))
            await upstream.gets_until(b"\r\n\r\n")
            await upstream.says(OK)
            await client.gets(len(OK))

            assert len(pool.warm) == 0

    run(play)


async def dies_with_the_request(proxy: Proxy, origin: Origin, asked: bytes) -> Stream:
    """Return a client whose request went to an upstream that had closed, as it turns out."""
    pool = warm_proxy(proxy)
    await exchange(proxy, origin)
    await pool.is_ready()
    waiting = await origin.accepts()
    client = await proxy.client()
    await client.says(asked)
    await waiting.gets_until(b"\r\n\r\n")
    await waiting.leaves()
    return client


def test_a_request_that_may_be_repeated_is_when_what_waited_turns_out_dead(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            client = await dies_with_the_request(proxy, origin, request(origin.port))
            fresh = await origin.accepts()
            await fresh.gets_until(b"\r\n\r\n")
            await fresh.leaves()  # once, and no more

            assert (await client.gets_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 502 ")

    run(play)


def test_a_socks_client_dials_for_its_reply_and_keeps_none(run: Run) -> None:
    async def play() -> None:
        async with (
            Origin().listening() as origin,
            proxy_of(policy=policy_for(origin.port)) as proxy,
        ):
            pool = warm_proxy(proxy)
            client = await proxy.client()
            target = b"\x05\x01\x00\x03\x0bexample.com" + origin.port.to_bytes(2)
            await client.says(b"\x05\x01\x00" + target)
            await client.gets(12)
            upstream = await origin.accepts()
            host = f"example.com:{origin.port}".encode()
            await client.says(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
            await upstream.gets_until(b"\r\n\r\n")
            await upstream.says(OK)
            await client.gets(len(OK))

            assert len(pool.warm) == 0

    run(play)
