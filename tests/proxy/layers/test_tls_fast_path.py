"""TLS after its handshake forwards bytes completely, and an abort is never an orderly end."""

import pytest

from claude_proxy.trust.certificate_authority import CertificateAuthority
from tests.proxy.layers.tls_peers import TlsClient, client_context
from tests.proxy.layers.tls_world import FATAL_ALERT, GARBAGE, GET, OK, World, world_of


@pytest.fixture
def world(authorities: tuple[CertificateAuthority, CertificateAuthority]) -> World:
    return world_of(authorities)


def test_a_kept_connection_goes_on(world: World) -> None:
    client = world.client()
    client.says(GET)
    origin = world.origin()
    for _ in range(3):
        assert origin.gets() == GET
        assert client.gets(origin.answers(OK)) == OK
        client.says(GET)

    assert len(world.stage.upstreams) == 1


def test_bodies_of_many_records_go_through_whole(world: World) -> None:
    body = bytes(range(256)) * 2000
    client = world.client()
    client.says(b"PUT / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 512000\r\n\r\n")
    origin = world.origin()
    origin.gets()
    client.says(body)
    up = origin.gets()
    answer = client.gets(
        origin.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 512000\r\n\r\n" + body)
    )

    assert up == body
    assert answer.endswith(b"\r\n\r\n" + body)


def test_a_client_that_says_goodbye_still_gets_its_answer(world: World) -> None:
    client = world.client()
    client.says(GET)
    world.stage.says(client.goodbye())
    origin = world.origin()
    answer = client.gets(origin.answers(OK))

    assert answer == OK
    assert world.stage.client.closed
    assert world.ledger.last.error is None


def test_a_client_that_only_half_closes_still_gets_its_answer(world: World) -> None:
    client = world.client()
    client.says(GET)
    world.stage.client_half_closes()
    origin = world.origin()

    assert client.gets(origin.answers(OK)) == OK


def test_a_goodbye_and_a_half_close_are_one_end(world: World) -> None:
    client = world.client()
    client.says(GET)
    world.stage.says(client.goodbye())
    world.stage.client_half_closes()

    assert not world.stage.client.closed


@pytest.mark.parametrize("last", [GARBAGE, FATAL_ALERT])
def test_a_client_whose_tls_breaks_gets_nothing_more_and_breaks_nothing(
    world: World, last: bytes
) -> None:
    client = world.client()
    client.says(GET)
    origin = world.origin()
    world.stage.says(last)

    origin.answers(OK)
    world.stage.says(last)

    assert world.stage.client.closed
    assert len(world.ledger.outcomes) == 2


def test_a_client_of_http_2_whose_tls_breaks_is_closed(world: World) -> None:
    stage = world.stage
    stage.says(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    TlsClient(stage, client_context(world.ours, "h2"), "example.com").pump()

    stage.says(GARBAGE)

    assert stage.session.protocol == "h2"
    assert stage.client.closed
