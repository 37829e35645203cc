"""Names are looked up side by side, and those that are never answered leave room for others."""

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from claude_proxy.proxy import resolver
from claude_proxy.proxy.resolver import SystemResolver, owner_of
from claude_proxy.wire.address import Address
from tests.support.loopback import LOOPS, Play, Run, run_on, until

ADDRESS = "192.0.2.7"


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    def play_on_loop(play: Play) -> None:
        run_on(request.param, play)

    return play_on_loop


class NameServer:
    """Answers for all names but the silent ones, until it is released."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.release = threading.Event()

    def __call__(self, host: str) -> Sequence[tuple[Any, ...]]:
        self.asked.append(host)
        if host.startswith("silent"):
            self.release.wait()
        if host.startswith("unknown"):
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(2, 1, 6, "", (ADDRESS, 0))] * 2


@pytest.fixture
def server() -> Iterator[NameServer]:
    server = NameServer()
    yield server
    server.release.set()


def asked_for(
    resolve: SystemResolver, names: Sequence[str], client: object = "flood"
) -> list[asyncio.Task[list[Address]]]:
    return [asyncio.ensure_future(resolve(name, 443, client)) for name in names]


def test_the_systems_resolver_gives_each_address_once(run: Run) -> None:
    async def play() -> None:
        found = await SystemResolver()("localhost", 443)

        assert found
        assert len(set(found)) == len(found)
        assert all(address.is_loopback for address in found)

    run(play)


def test_a_name_the_system_does_not_know_is_an_error_of_its_own(run: Run) -> None:
    async def play() -> None:
        with pytest.raises(socket.gaierror):
            await SystemResolver()("no-such-name.invalid", 443)

    run(play)


def test_a_name_that_no_resolver_takes_is_an_error_of_its_own(run: Run) -> None:
    async def play() -> None:
        with pytest.raises(OSError, match="label"):
            await SystemResolver()("a" * 70 + ".test", 443)

    run(play)


def test_a_name_is_looked_up_once_for_all_who_ask_meanwhile(run: Run, server: NameServer) -> None:
    async def play() -> None:
        resolve = SystemResolver(server)
        asked = asked_for(resolve, ["silent.test"] * 5)
        await until(lambda: server.asked)
        server.release.set()

        assert [list(map(str, await each)) for each in asked] == [[ADDRESS]] * 5
        assert server.asked == ["silent.test"]

        await resolve("silent.test", 443)
        assert server.asked == ["silent.test"] * 2

    run(play)


def test_all_who_ask_for_an_unknown_name_get_the_error(run: Run, server: NameServer) -> None:
    async def play() -> None:
        asked = asked_for(SystemResolver(server), ["unknown.test"] * 2)

        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in found] == [socket.gaierror] * 2

    run(play)


def test_silent_names_of_one_owner_leave_threads_for_others(run: Run, server: NameServer) -> None:
    async def play() -> None:
        resolve = SystemResolver(server)
        share = resolver.THREADS_OF_OWNER // 2
        asked_for(resolve, [f"silent{number}.wild.example" for number in range(400)])
        await until(lambda: len(server.asked) >= share)

        # The same client for another name, and another client for the same owner's too.
        assert await resolve("other.example", 443, "flood")
        assert await resolve("another.example", 443, "other")
        assert await resolve("good.wild.example", 443, "other")
        assert sum(name.startswith("silent") for name in server.asked) == share

    run(play)


def test_silent_names_of_one_client_leave_threads_for_others(run: Run, server: NameServer) -> None:
    async def play() -> None:
        resolve = SystemResolver(server, threads=16)
        asked_for(resolve, [f"silent.o{number}.example" for number in range(100)])
        await until(lambda: len(server.asked) == 8)

        for client in ("second", "third"):
            assert await resolve("other.example", 443, client)
            before = len(server.asked)
            asked_for(
                resolve, [f"silent.{client}{number}.example" for number in range(100)], client
            )
            await until(lambda before=before: len(server.asked) > before)  # type: ignore[misc]
        assert await resolve("other.example", 443, "fourth")

    run(play)


def test_who_no_longer_waits_gets_no_thread(run: Run, server: NameServer) -> None:
    async def play() -> None:
        resolve = SystemResolver(server, threads=2)
        (first, second) = asked_for(resolve, ["silent.a.example", "silent.b.example"])
        await until(lambda: server.asked)
        second.cancel()
        await asyncio.wait([second])
        server.release.set()
        await first

        assert server.asked == ["silent.a.example"]
        assert not resolve._waiting
        assert not resolve._lookups

    run(play)


def test_names_wait_while_every_thread_is_taken(
    run: Run, server: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        resolve = SystemResolver(server, threads=1)
        first = asked_for(resolve, ["silent.a.example"], "a")
        later = asked_for(resolve, ["b.example", "c.example"], "b")
        await until(lambda: server.asked)
        assert server.asked == ["silent.a.example"]
        server.release.set()
        await asyncio.gather(*first, *later)

        assert server.asked == ["silent.a.example", "b.example", "c.example"]
        assert caplog.text.count("do not answer; further names wait") >= 1

    run(play)


@pytest.mark.parametrize(
    ("host", "owner"),
    [
        ("a.b.example.com", "example.com"),
        ("example.com", "example.com"),
        ("a.example.co.uk", "example.co.uk"),
        ("x.someone.github.io", "someone.github.io"),
        ("a.b.corp.test", "corp.test"),
        ("localhost", "localhost"),
        ("com", "com"),
        ("a.b.c.d.e.f.example.de", "example.de"),
    ],
)
def test_the_names_of_one_owner_share(host: str, owner: str) -> None:
    assert owner_of(host) == owner
