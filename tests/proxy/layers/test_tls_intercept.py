"""Intercepted TLS shows our leaf to the client, and ends in order."""

import ssl

import pytest
from OpenSSL import SSL

from claude_proxy.proxy.layers.protocol_detection import ProtocolDetection
from claude_proxy.proxy.layers.session import Waiting
from claude_proxy.proxy.layers.tls_intercept import TlsIntercept
from claude_proxy.proxy.layers.tls_watch import TlsWatch
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.client_hello import ClientHello, HelloReader
from tests.proxy.layers.stage import Stage, a_dialer, gate_of
from tests.proxy.layers.tls_peers import TlsClient, client_context
from tests.proxy.layers.tls_world import ALLOWLIST, FATAL_ALERT, GARBAGE, GET, OK, World, world_of

# SSL_OP_ECH_GREASE of OpenSSL 4.0, which pyOpenSSL has no name for: what Chromium always sends.
_ECH_GREASE = 1 << 37


@pytest.fixture
def world(authorities: tuple[CertificateAuthority, CertificateAuthority]) -> World:
    return world_of(authorities)


# --- the client's side


def test_a_request_goes_through_two_layers_of_tls_and_back(world: World) -> None:
    client = world.client()
    client.says(GET)
    origin = world.origin()
    asked = origin.gets()
    answer = client.gets(origin.answers(OK))

    assert (asked, answer) == (GET, OK)
    assert client.tls.version() == "TLSv1.3"
    assert world.stage.session.waiting is Waiting.IDLE
    assert world.ledger.last.bytes_down == 2


def test_a_request_may_come_with_the_last_bytes_of_the_handshake(world: World) -> None:
    stage = world.stage
    stage.says(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    client = TlsClient(stage, client_context(world.ours), "example.com")
    finished = client.turn(stage.says(client.hello()))

    stage.says(finished + client.seal(GET))

    assert world.origin().gets() == GET


def test_a_client_that_sends_an_encrypted_hello_is_answered_for_the_outer_name(
    world: World,
) -> None:
    stage = world.stage
    stage.says(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(str(world.ours.certificate_path))
    context.set_verify(SSL.VERIFY_PEER)
    context.set_options(_ECH_GREASE)
    client = SSL.Connection(context)
    client.set_connect_state()
    client.set_tlsext_host_name(b"example.com")
    sent = _shaken(client, stage)
    client.send(GET)
    stage.says(client.bio_read(65536))

    hello = HelloReader().feed(sent)
    assert hello is not None
    assert hello.encrypted
    for_upstream = HelloReader().feed(bytes(stage.upstream.take()))
    assert for_upstream is not None
    assert (for_upstream.sni, for_upstream.encrypted) == ("example.com", False)


def _shaken(client: SSL.Connection, stage: Stage) -> bytes:
    """Shake hands; return the client's first bytes."""
    first = b""
    while True:
        try:
            client.do_handshake()
        except SSL.WantReadError:
            sent = client.bio_read(65536)
            first = first or sent
            client.bio_write(stage.says(sent))
        else:
            stage.says(client.bio_read(65536))
            return first


def test_a_client_of_tls_1_2_is_served(world: World) -> None:
    client = world.client(maximum_version=ssl.TLSVersion.TLSv1_2)

    client.says(GET)

    assert client.tls.version() == "TLSv1.2"
    assert world.origin().gets() == GET


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_an_older_client_is_not(world: World) -> None:
    stage = world.stage
    stage.says(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    context = client_context(world.ours)
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    client = TlsClient(stage, context, "example.com")

    client.pump()

    assert not client.shaken
    assert stage.client.closed


def test_a_client_that_does_not_trust_us_is_let_go(world: World) -> None:
    stage = world.stage
    stage.says(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    client = TlsClient(stage, client_context(world.theirs), "example.com")

    client.pump()

    assert isinstance(client.error, ssl.SSLCertVerificationError)
    assert stage.client.closed
    assert stage.upstreams == []
    assert world.ledger.last.error == "client-rejected-certificate"


def test_a_client_that_leaves_within_the_handshake_is_let_go(world: World) -> None:
    stage = world.stage
    stage.says(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    client = TlsClient(stage, client_context(world.ours), "example.com")
    stage.says(client.hello())

    stage.client_half_closes()

    assert stage.client.closed
    assert world.ledger.last.error == "client-left-after-certificate"


def test_a_client_that_leaves_after_the_handshake_without_a_byte_is_recorded(world: World) -> None:
    client = world.client()

    world.stage.says(client.goodbye())
    world.stage.client_goes()

    assert [outcome.error for outcome in world.ledger.outcomes] == ["client-left-after-certificate"]


def test_a_handshake_that_takes_too_long_is_recorded_as_that(world: World) -> None:
    stage = world.stage
    stage.says(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    client = TlsClient(stage, client_context(world.ours), "example.com")
    stage.says(client.hello())

    stage.expires()
    stage.client_goes()

    assert [outcome.error for outcome in world.ledger.outcomes] == ["handshake-timeout"]


def test_a_tunnel_has_served_its_purpose_with_the_first_bytes_in_it(world: World) -> None:
    client = world.client()
    assert world.ledger.outcomes == []

    client.says(GET)

    assert world.ledger.outcomes[0].error is None


def test_without_a_certificate_to_show_the_connection_ends(world: World) -> None:
    hello = ClientHello("example.com", (), encrypted=False)
    client = TlsClient(world.stage, client_context(world.ours), "example.com")

    session = world.stage.session
    attempt = session.gate.connect(session.client_info, Authority.of("example.com", 443))

    def front(context: object, session: object) -> TlsIntercept:
        ProtocolDetection(context, session, a_dialer())  # type: ignore[arg-type]
        watch = TlsWatch(world.stage.session, attempt, Authority.of("example.com", 443))
        return TlsIntercept(context, hello, make_nothing, watch, None)  # type: ignore[arg-type]

    stage = Stage(front, gate_of(ALLOWLIST, world.ledger))
    stage.says(client.hello())

    assert stage.client.closed
    assert world.ledger.last.error == "internal-error"


def make_nothing(_: object) -> None:  # type: ignore[explicit-any, unused-ignore]
    """Make no layer: the handshake never gets so far."""


# --- ends


def test_we_say_goodbye_before_we_close(world: World) -> None:
    client = world.client()

    client.says(b"GARBAGE\r\n\r\n")

    assert client.ended
    assert world.stage.client.closed


def test_a_client_that_leaves_is_recorded(world: World) -> None:
    client = world.client()
    client.says(GET)
    world.stage.says(client.goodbye())

    world.stage.client_goes()

    assert world.ledger.last.error == "client-closed"


# --- bytes after the handshake


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


@pytest.mark.parametrize("last", [GARBAGE, FATAL_ALERT])
def test_what_comes_right_before_a_break_is_read_and_not_answered(
    world: World, last: bytes
) -> None:
    client = world.client()

    answer = world.stage.says(client.seal(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n") + last)

    assert world.ledger.reasons[-1] == "host-mismatch"
    assert b"HTTP/1.1" not in client.gets(answer)
    assert world.stage.client.closed


def test_a_client_of_http_2_whose_tls_breaks_is_closed(world: World) -> None:
    stage = world.stage
    stage.says(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    TlsClient(stage, client_context(world.ours, "h2"), "example.com").pump()

    stage.says(GARBAGE)

    assert stage.session.protocol == "h2"
    assert stage.client.closed
