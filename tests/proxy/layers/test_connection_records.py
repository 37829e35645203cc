"""A record of a connection is what mitmproxy's is to a layer, and is made only where it is read."""

from collections.abc import Callable

import pytest
from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.proxy import context as mitmproxy_context

from claude_proxy.proxy.layers.connection_records import (
    ClientRecord,
    LayerContext,
    can_read,
    next_id,
)
from claude_proxy.proxy.layers.http1 import Http1Lane
from claude_proxy.proxy.layers.upstream import UpstreamServer
from tests.proxy.layers.stage import options_of


def a_client() -> ClientRecord:
    return ClientRecord(
        peername=("127.0.0.1", 50_000), sockname=("127.0.0.1", 9051), state=ConnectionState.OPEN
    )


def a_context() -> LayerContext:
    return LayerContext(a_client(), options_of())


@pytest.mark.parametrize("state", [*ConnectionState, ConnectionState.OPEN])
def test_a_peer_may_send_exactly_where_mitmproxys_flags_say_so(state: ConnectionState) -> None:
    client = a_client()

    client.state = state

    assert can_read(client) is bool(state & ConnectionState.CAN_READ)


@pytest.mark.parametrize("make", [a_client, lambda: UpstreamServer(address=("a.test", 443))])
def test_a_connection_equals_itself_alone_even_where_ids_are_equal(
    make: Callable[[], Connection],
) -> None:
    one, two = make(), make()
    two.id = one.id

    assert one == one  # noqa: PLR0124 - the law
    assert one != two
    assert len({one, two}) == 2
    assert isinstance(one, Connection)


def test_ids_of_connections_differ() -> None:
    assert len({a_client().id, a_client().id, next_id(), a_context().server.id}) == 4


def test_a_context_has_one_upstream_without_an_address_until_one_is_put_there() -> None:
    context = a_context()

    assert context.server is context.server
    assert context.server.address is None
    assert context.server.state is ConnectionState.CLOSED
    context.server = other = Server(address=("a.test", 443))
    assert context.server is other


def test_a_forked_context_shares_the_client_and_has_an_upstream_and_layers_of_its_own() -> None:
    context = a_context()
    layer = Http1Lane.__new__(Http1Lane)
    context.layers.append(layer)

    forked = context.fork()
    forked.server = Server(address=("a.test", 443))
    forked.layers.clear()

    assert forked.client is context.client
    assert forked.options is context.options
    assert context.server.address is None
    assert context.layers == [layer]


def test_a_context_has_every_attribute_that_mitmproxys_has() -> None:
    plain = mitmproxy_context.Context(a_client(), options_of())

    assert all(hasattr(a_context(), name) for name in vars(plain))


def test_layers_read_the_options_of_the_proxy() -> None:
    options = options_of()
    context = LayerContext(a_client(), options)

    assert context.options.proxy_debug is False
    assert context.options.connection_strategy == options.connection_strategy
    with pytest.raises(AttributeError):
        _ = context.options.no_such_option


def test_the_address_of_an_open_upstream_cannot_change() -> None:
    server = UpstreamServer(address=("a.test", 443))
    server.state = ConnectionState.OPEN

    server.sni = "a.test"

    with pytest.raises(RuntimeError):
        server.address = ("b.test", 443)
    assert server.address == ("a.test", 443)
