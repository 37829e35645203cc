"""The laws of one transport of a connection: it reports to its owner, and pauses on request."""

import asyncio
import select
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mitmproxy.connection import Client, ConnectionState, Server

from claude_proxy.proxy.endpoint import Endpoint
from claude_proxy.proxy.layers.upstream import UpstreamServer
from claude_proxy.system.tcp_acknowledged import acknowledged
from tests.support.loopback import LOOPS, run_on, until


class Owner:
    """A connection that remembers what its endpoints reported."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.sockets = 0

    def count_socket(self, change: int) -> None:
        self.sockets += change

    def received(self, _: Endpoint, data: bytes) -> None:
        self.heard.append(data)

    def ended(self, _: Endpoint) -> None:
        self.heard.append("ended")

    def lost(self, _: Endpoint) -> None:
        self.heard.append("lost")

    def balance(self) -> None:
        self.heard.append("balance")


async def opened(connection: Any) -> tuple[Owner, Endpoint, socket.socket]:
    """Return an endpoint, connected, and the peer's socket."""
    owner = Owner()
    endpoint = Endpoint(owner, connection)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    near.setblocking(False)
    peer.setblocking(False)
    await asyncio.get_running_loop().create_connection(lambda: endpoint, sock=near)
    return owner, endpoint, peer


class Transport(asyncio.Transport):
    """A transport of which only its limits are set."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


def test_bytes_that_were_read_before_come_before_all_others() -> None:
    owner = Owner()
    endpoint = Endpoint(owner, client(), b"early")

    endpoint.connection_made(Transport())
    endpoint.data_received(b"late")

    assert owner.heard == [b"early", b"late"]


def test_a_lost_transport_is_not_written_to_by_what_is_handled_later() -> None:
    endpoint = Endpoint(Owner(), client())
    endpoint.connection_made(Transport())

    endpoint.connection_lost(None)

    assert endpoint.transport is None


def client() -> Client:
    return Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), state=ConnectionState.OPEN)


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


@pytest.fixture(params=LOOPS)
def play(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    return lambda script: run_on(request.param, script)


def test_bytes_the_end_and_the_loss_are_reported_in_order(play: Any) -> None:
    async def script() -> None:
        owner, endpoint, peer = await opened(client())
        peer.send(b"bytes")
        peer.shutdown(socket.SHUT_WR)
        await until(lambda: "ended" in owner.heard)
        assert endpoint.transport is not None
        assert not endpoint.transport.is_closing()  # it may still be written to
        endpoint.transport.abort()
        await until(lambda: "lost" in owner.heard)
        peer.close()

        assert owner.heard == [b"bytes", "ended", "lost"]

    play(script)


def test_a_paused_endpoint_reads_nothing_until_it_is_resumed(play: Any) -> None:
    async def script() -> None:
        owner, endpoint, peer = await opened(client())
        endpoint.pause(pause=True)
        peer.send(b"later")
        for _ in range(5):
            await asyncio.sleep(0)
        assert (endpoint.is_paused, owner.heard) == (True, [])

        endpoint.pause(pause=False)

        await until(lambda: owner.heard == [b"later"])
        peer.close()
        endpoint.reset()
        await until(lambda: "lost" in owner.heard)

    play(script)


def test_a_reset_is_noticed_on_an_endpoint_that_is_paused(play: Any) -> None:
    async def script() -> None:
        owner, endpoint, peer = await opened(client())
        endpoint.pause(pause=True)
        assert not endpoint.was_reset()

        reset(peer)

        assert endpoint.was_reset()
        endpoint.reset()
        await until(lambda: "lost" in owner.heard)
        assert not endpoint.was_reset()

    play(script)


@pytest.mark.parametrize(
    ("connection", "notes"),
    [
        pytest.param(UpstreamServer(address=("127.0.0.1", 1)), True, id="ours"),
        pytest.param(Server(address=("127.0.0.1", 1)), False, id="mitmproxys"),
    ],
)
def test_a_broken_upstream_is_noted_as_broken_on_a_connection_of_ours_alone(
    play: Any, connection: Server, *, notes: bool
) -> None:
    connection.error = None

    async def script() -> None:
        owner, _, peer = await opened(connection)
        reset(peer)
        await until(lambda: "lost" in owner.heard)

        assert (connection.error is not None) is notes

    play(script)


def test_a_reset_endpoint_resets_its_peer(play: Any) -> None:
    async def script() -> None:
        owner, endpoint, peer = await opened(client())
        endpoint.reset()
        await until(lambda: "lost" in owner.heard)
        peer.setblocking(True)

        with peer, pytest.raises(ConnectionResetError):
            peer.recv(1)

    play(script)


def test_an_endpoint_without_a_transport_is_left_alone() -> None:
    endpoint = Endpoint(Owner(), client())

    endpoint.reset()
    endpoint.pause(pause=True)

    assert (endpoint.is_paused, endpoint.was_reset()) == (False, False)


def test_an_answer_before_a_reset_is_read_though_a_write_failed_first(play: Any) -> None:
    async def script() -> None:
        server = UpstreamServer(address=("127.0.0.1", 1))
        owner, endpoint, peer = await opened(server)
        assert endpoint.transport is not None
        endpoint.pause(pause=True)
        endpoint.transport.write(b"a request that is not read")
        await until(lambda: select.select([peer], [], [], 0)[0])
        peer.send(b"answer")
        peer.close()
        while "lost" not in owner.heard:
            endpoint.transport.write(b"more")
            await asyncio.sleep(0)

        assert [part for part in owner.heard if part != "balance"] == [b"answer", "lost"]

    play(script)


@pytest.mark.parametrize(("sent", "untouched"), [(b"", True), (b"hello", False)])
@pytest.mark.parametrize("ends", ["closes", "resets"])
def test_an_upstream_that_ends_is_untouched_if_nothing_has_reached_it(
    play: Any, ends: str, sent: bytes, *, untouched: bool
) -> None:
    async def run() -> None:
        server = UpstreamServer(address=("example.com", 80))
        owner, endpoint, peer = await opened(server)
        transport = endpoint.transport
        assert transport is not None
        server.acknowledged = acknowledged(transport.get_extra_info("socket"))
        transport.write(sent)
        await until(lambda: not sent or select.select([peer], [], [], 0)[0])
        if ends == "resets":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        await until(lambda: owner.heard)

        assert server.is_untouched is untouched
        transport.abort()

    play(run)
