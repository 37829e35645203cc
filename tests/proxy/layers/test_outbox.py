"""An outbox joins the writes of one event, and orders them before the close."""

from typing import Any

import pytest
from mitmproxy.connection import Client
from mitmproxy.proxy import commands

from claude_proxy.proxy.layers.outbox import Outbox
from claude_proxy.proxy.layers.upstream import PIECE


class FakeUpstream:
    """Sends bytes as commands, as `UpstreamConnection` does without TLS."""

    def send(self, data: bytes) -> list[Any]:
        return [("up", data)]


UPSTREAM: Any = FakeUpstream()


@pytest.fixture
def client() -> Client:
    return Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))


@pytest.fixture
def outbox(client: Client) -> Outbox:
    return Outbox(client)


def shown(taken: list[commands.Command]) -> list[object]:
    return [one.data if isinstance(one, commands.SendData) else one for one in taken]


def test_writes_to_one_peer_are_one_write(outbox: Outbox) -> None:
    for piece in (b"a", b"b"):
        outbox.to_client(piece)
        outbox.to_upstream(piece)

    assert shown(outbox.take(UPSTREAM)) == [b"ab", ("up", b"ab")]


def test_many_bytes_stay_in_their_pieces_and_in_order(outbox: Outbox) -> None:
    pieces = [b"head", bytes(PIECE), b"tail"]
    for piece in pieces:
        outbox.to_client(piece)
        outbox.to_upstream(piece)

    assert shown(outbox.take(UPSTREAM)) == [*pieces, *(("up", piece) for piece in pieces)]
    assert outbox.take(UPSTREAM) == []


def test_what_was_taken_is_not_taken_again(outbox: Outbox) -> None:
    outbox.to_client(b"a")
    outbox.to_upstream(b"b")
    outbox.take(UPSTREAM)

    assert outbox.take(UPSTREAM) == []


def test_nothing_is_no_write(outbox: Outbox) -> None:
    outbox.to_client(b"")

    assert outbox.take(UPSTREAM) == []


def test_the_close_comes_after_what_was_written(outbox: Outbox) -> None:
    outbox.to_client(b"last")
    outbox.close_client()

    data, close = shown(outbox.take(None))
    assert data == b"last"
    assert isinstance(close, commands.CloseConnection)


def test_an_upstream_that_is_given_up_gets_nothing(outbox: Outbox) -> None:
    outbox.to_upstream(b"of the old one")
    outbox.forget_upstream()

    assert outbox.take(UPSTREAM) == []


def test_without_an_upstream_nothing_waits_for_the_next_one(outbox: Outbox) -> None:
    outbox.to_upstream(b"of the old one")
    outbox.take(None)

    assert outbox.take(UPSTREAM) == []


def test_other_commands_keep_their_order(outbox: Outbox, client: Client) -> None:
    first, *rest = (commands.CloseConnection(client) for _ in range(3))
    outbox.add(first)
    outbox.extend(iter(rest))

    assert outbox.take(None) == [first, *rest]
