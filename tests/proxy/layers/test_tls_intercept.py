"""The laws of TLS that is opened: ours to the client, verified upstream, steady after that."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest

from claude_proxy.proxy.hooks.tls import TlsCertificates
from claude_proxy.proxy.layers.protocol_detection import ProtocolDetection
from claude_proxy.proxy.layers.session import Waiting
from claude_proxy.proxy.layers.tls_intercept import TlsIntercept
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.wire.client_hello import ClientHello
from tests.proxy.layers.http1_peers import reason_of
from tests.proxy.layers.stage import Hook, Ledger, Stage, a_dialer, gate_of, options_of
from tests.proxy.layers.tls_peers import TlsClient, TlsOrigin, client_context, origin_context

ALLOWLIST = """
allow:
  - example.com
  - {host: 192.0.2.1}
"""
GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
FATAL_ALERT = b"\x15\x03\x03\x00\x02\x02\x50"
GARBAGE = b"\x17\x03\x03\x00\x20" + bytes(32)


@dataclass
class World:
    """A proxy whose one upstream authority is trusted, and what it has recorded."""

    ours: CertificateAuthority
    theirs: CertificateAuthority
    ledger: Ledger
    stage: Stage

    def client(self, host: str = "example.com", **changes: object) -> TlsClient:
        """Open a tunnel, and shake hands in it."""
        named = f"{host}:443".encode()
        self.stage.says(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (named, named))
        context = client_context(self.ours)
        for name, value in changes.items():
            setattr(context, name, value)
        client = TlsClient(self.stage, context, host)
        client.pump()
        return client

    def origin(self, host: str = "example.com", *protocols: str) -> TlsOrigin:
        return TlsOrigin(self.stage, origin_context(self.theirs, host, protocols))


@pytest.fixture(scope="module")
def authorities(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[CertificateAuthority, CertificateAuthority]:
    ours: Path = tmp_path_factory.mktemp("ours")
    theirs: Path = tmp_path_factory.mktemp("theirs")
    return CertificateAuthority.load_or_create(ours), CertificateAuthority.load_or_create(theirs)


@pytest.fixture
def world(authorities: tuple[CertificateAuthority, CertificateAuthority]) -> World:
    ours, theirs = authorities
    ledger, certificates = Ledger(), TlsCertificates(ours)
    hooks: dict[str, Hook] = {
        "tls_start_client": certificates.tls_start_client,
        "tls_start_server": certificates.tls_start_server,
    }
    stage = Stage(
        lambda context, session: ProtocolDetection(context, session, a_dialer()),
        gate_of(ALLOWLIST, ledger),
        hooks=hooks,
        options=options_of(ssl_verify_upstream_trusted_ca=str(theirs.certificate_path)),
    )
    return World(ours, theirs, ledger, stage)


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


def test_a_request_may_come_with_the_last_bytes_of_the_handshake(world: World) -> None:
    stage = world.stage
    stage.says(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    client = TlsClient(stage, client_context(world.ours), "example.com")
    finished = client.turn(stage.says(client.hello()))

    stage.says(finished + client.seal(GET))

    assert world.origin().gets() == GET


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


def test_a_client_that_leaves_within_the_handshake_is_let_go(world: World) -> None:
    stage = world.stage
    stage.says(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    client = TlsClient(stage, client_context(world.ours), "example.com")
    stage.says(client.hello())

    stage.client_half_closes()

    assert stage.client.closed


def test_without_a_certificate_to_show_the_connection_ends(world: World) -> None:
    hello = ClientHello("example.com", (), encrypted=False)
    client = TlsClient(world.stage, client_context(world.ours), "example.com")

    def front(context: object, session: object) -> TlsIntercept:
        ProtocolDetection(context, session, a_dialer())  # type: ignore[arg-type]
        return TlsIntercept(context, hello, make_nothing)  # type: ignore[arg-type]

    stage = Stage(front, gate_of(ALLOWLIST, world.ledger))
    stage.says(client.hello())

    assert stage.client.closed


def make_nothing(_: object) -> None:  # type: ignore[explicit-any, unused-ignore]
    """Make no layer: the handshake never gets so far."""


# --- ends


def test_we_say_goodbye_before_we_close(world: World) -> None:
    client = world.client()

    client.says(b"GARBAGE\r\n\r\n")

    assert client.ended
    assert world.stage.client.closed


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


def test_a_client_that_leaves_is_recorded(world: World) -> None:
    client = world.client()
    client.says(GET)
    world.stage.says(client.goodbye())

    world.stage.client_goes()

    assert world.ledger.last.error == "client-closed"


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


def test_an_upstream_that_said_goodbye_while_it_was_kept_is_dialled_anew(world: World) -> None:
    client = world.client()
    client.says(GET)
    origin = world.origin()
    client.gets(origin.answers(OK))
    world.stage.answers(origin.goodbye())

    client.says(GET)

    assert len(world.stage.upstreams) == 2
    assert world.origin().gets() == GET
