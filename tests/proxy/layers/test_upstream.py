"""The judged name of an upstream is verified, and only an orderly end counts as one."""

import random
import ssl

import pytest

from claude_proxy.proxy.layers.upstream import (
    PIECE,
    UpstreamConnection,
    UpstreamEnded,
    is_worth_another,
)
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.head import ResponseHead
from tests.proxy.layers.http1_peers import reason_of
from tests.proxy.layers.tls_peers import TlsOrigin, origin_context
from tests.proxy.layers.tls_world import FATAL_ALERT, GARBAGE, GET, OK, World, world_of


@pytest.fixture
def world(authorities: tuple[CertificateAuthority, CertificateAuthority]) -> World:
    return world_of(authorities)


def _answer_with(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


# --- the upstream's side


def test_an_upstream_hears_the_judged_name_and_is_offered_http_1(world: World) -> None:
    heard: list[str | None] = []
    context = origin_context(world.theirs, "example.com", ("h2", "http/1.1"))
    context.sni_callback = lambda _tls, name, _context: heard.append(name)
    world.client().says(GET)

    origin = TlsOrigin(world.stage, context)

    assert heard == ["example.com"]
    assert origin.tls.selected_alpn_protocol() == "http/1.1"


def test_an_address_is_verified_as_an_address(world: World) -> None:
    client = world.client("192.0.2.1")
    client.says(b"GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n")

    assert world.origin("192.0.2.1").gets().startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize("shown", ["evil.example", "192.0.2.9"])
def test_a_certificate_for_another_name_is_a_bad_gateway(world: World, shown: str) -> None:
    client = world.client()
    client.says(GET)

    answer = client.gets(world.origin(shown).for_client)

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert reason_of(answer) == "upstream-certificate-invalid"
    assert world.ledger.last.error == "upstream-certificate-invalid"
    assert world.stage.upstream.closed


def test_a_certificate_of_an_unknown_authority_is_a_bad_gateway(world: World) -> None:
    client = world.client()
    client.says(GET)

    origin = TlsOrigin(world.stage, origin_context(world.ours, "example.com"))

    assert reason_of(client.gets(origin.for_client)) == "upstream-certificate-invalid"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_upstream_that_demands_a_client_certificate_is_said_to(
    world: World, version: ssl.TLSVersion
) -> None:
    context = origin_context(world.theirs, "example.com")
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    client = world.client()
    client.says(GET)

    answer = client.gets(TlsOrigin(world.stage, context).for_client)

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert reason_of(answer) == "upstream-tls-failed"
    assert b"it demands a client certificate" in answer


def test_an_upstream_of_an_old_version_is_said_to_be(world: World) -> None:
    client = world.client()
    client.says(GET)

    answer = client.gets(world.stage.answers(b"\x15\x03\x01\x00\x02\x02\x46"))

    assert b"it speaks only versions of TLS before 1.2" in answer


def test_an_upstream_that_speaks_no_tls_is_a_bad_gateway(world: World) -> None:
    client = world.client()
    client.says(GET)

    answer = client.gets(world.stage.answers(b"HTTP/1.1 200 OK\r\n\r\n"))

    assert reason_of(answer) == "upstream-tls-failed"


def test_an_upstream_that_leaves_within_its_handshake_is_a_bad_gateway(world: World) -> None:
    client = world.client()
    client.says(GET)

    answer = client.gets(world.stage.upstream_ends())

    assert reason_of(answer) == "upstream-tls-failed"


def test_an_upstream_that_says_goodbye_ends_its_answer(world: World) -> None:
    client = world.client()
    client.says(GET)
    origin = world.origin()
    begun = client.gets(origin.answers(b"HTTP/1.1 200 OK\r\n\r\nhi"))
    ended = client.gets(world.stage.answers(origin.goodbye()))

    assert begun.endswith(b"\r\n\r\n2\r\nhi\r\n")
    assert ended == b"0\r\n\r\n"


def test_a_long_answer_passes_whole_and_its_connection_is_used_again(world: World) -> None:
    client = world.client()
    client.says(GET)
    origin = world.origin()
    origin.gets()
    body = random.Random(1).randbytes(5 * PIECE + 1)

    answer = client.gets(origin.answers(_answer_with(body)))
    client.says(GET)

    assert answer.partition(b"\r\n\r\n")[2] == body
    assert origin.gets().startswith(b"GET / ")


@pytest.mark.parametrize("asked", [(GET, GET), (GET + GET, b"")], ids=["later", "pipelined"])
def test_bytes_behind_a_long_answer_never_answer_the_next_request(
    world: World, asked: tuple[bytes, bytes]
) -> None:
    client = world.client()
    client.says(asked[0])
    origin = world.origin()
    whole = _answer_with(bytes(PIECE - 4096))
    # So that the first piece ends within the record that nobody asked for.
    unasked = OK.replace(b"hi", b"no") + bytes(16_000)

    got = client.gets(world.stage.answers(origin.seal(whole) + origin.seal(unasked), origin.peer))
    if asked[1]:
        client.says(asked[1])
    other = world.origin()
    got += client.gets(other.answers(OK))

    assert other.peer is not origin.peer
    assert got.endswith(bytes(4096) + OK)
    assert b"no" not in got


def test_bytes_that_came_in_pieces_are_one_again_up_to_what_is_not_bytes() -> None:
    upstream = UpstreamConnection(Authority.of("a.test", 443), tls=None)
    upstream.inbox.extend((b"b", b"c", UpstreamEnded(), b"d"))

    assert upstream.with_rest(b"a") == b"abc"
    assert upstream.with_rest(b"x") == b"x"
    assert len(upstream.inbox) == 2


@pytest.mark.parametrize("last", [GARBAGE, FATAL_ALERT])
def test_an_answer_whose_tls_breaks_never_looks_whole(world: World, last: bytes) -> None:
    client = world.client()
    client.says(GET)
    origin = world.origin()
    client.gets(origin.answers(b"HTTP/1.1 200 OK\r\n\r\nhi"))

    ended = client.gets(world.stage.answers(last))

    assert ended == b""
    assert world.stage.client.closed
    assert world.ledger.last.error == "upstream-cut-short"


def test_a_broken_record_in_place_of_an_answer_is_said_to_be_one(world: World) -> None:
    client = world.client()
    client.says(GET)
    world.origin()

    answer = client.gets(world.stage.answers(GARBAGE))

    assert reason_of(answer) == "upstream-tls-failed"
    assert b"sent a record that is damaged or not TLS" in answer
    assert world.ledger.last.error == "upstream-tls-failed"


def test_an_upstream_that_sent_close_notify_while_idle_is_dialled_again(world: World) -> None:
    client = world.client()
    client.says(GET)
    origin = world.origin()
    client.gets(origin.answers(OK))
    world.stage.answers(origin.goodbye())

    client.says(GET)

    assert len(world.stage.upstreams) == 2
    assert world.origin().gets() == GET


@pytest.mark.parametrize(
    ("minor", "status", "worth"),
    [(1, 200, True), (1, 404, True), (0, 200, False), (1, 429, False), (1, 500, False)],
)
def test_another_connection_is_worth_it_unless_the_upstream_is_busy_or_old(
    minor: int, status: int, *, worth: bool
) -> None:
    head = ResponseHead(minor=minor, fields=[], status=status)

    assert is_worth_another(head) is worth
