"""Bytes go through TLS whole and in order, and an abort is never an orderly end."""

import ssl

import pytest

from claude_proxy.proxy.tls_records import TlsRecords
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.leaf_contexts import LeafContexts
from tests.proxy.layers.tls_peers import client_context

type Pair = tuple[TlsRecords, TlsRecords]


@pytest.fixture(scope="module")
def authorities(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[CertificateAuthority, CertificateAuthority]:
    ours, theirs = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("theirs")
    return CertificateAuthority.load_or_create(ours), CertificateAuthority.load_or_create(theirs)


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def pair(
    request: pytest.FixtureRequest, authorities: tuple[CertificateAuthority, CertificateAuthority]
) -> Pair:
    """Return a client and a server after their handshake."""
    authority, _ = authorities
    context = client_context(authority, "http/1.1")
    context.maximum_version = request.param
    shown = LeafContexts(authority).context_for("example.com")
    assert shown is not None
    client = TlsRecords(context, server=False, name="example.com")
    server = TlsRecords(shown, server=True)
    done = (client.shake(b""), False)
    while not all(done):
        done = (done[0], done[1] or server.shake(client.take()))
        done = (done[0] or client.shake(server.take()), done[1])
    assert client.alpn == server.alpn == b"http/1.1"
    return client, server


@pytest.mark.parametrize("size", [0, 1, 200, 16 * 1024, 16 * 1024 + 1, 300_000])
def test_bytes_go_through_whole(pair: Pair, size: int) -> None:
    client, server = pair
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)

    got = server.decrypt(client.encrypt(data))

    assert (got.plain, got.error, got.ended) == (data, None, False)


def test_a_record_that_comes_in_pieces_is_read_when_it_is_whole(pair: Pair) -> None:
    client, server = pair
    sealed = client.encrypt(b"hello") + client.encrypt(b" again")

    pieces = [server.decrypt(sealed[at : at + 1]).plain for at in range(len(sealed))]

    assert b"".join(pieces) == b"hello again"
    assert [piece for piece in pieces if piece] == [b"hello", b" again"]


def test_close_notify_ends_one_direction_after_what_came_before(pair: Pair) -> None:
    client, server = pair

    got = server.decrypt(client.encrypt(b"last") + client.end())

    assert (got.plain, got.error, got.ended) == (b"last", None, True)
    assert client.decrypt(server.encrypt(b"answer")).plain == b"answer"
    assert client.decrypt(server.end()).ended


@pytest.mark.parametrize("large", [False, True])
def test_what_came_before_a_broken_record_is_valid(pair: Pair, *, large: bool) -> None:
    client, server = pair
    before = bytes(100_000) if large else b"before"
    sealed = client.encrypt(before)
    broken = bytearray(client.encrypt(b"broken"))
    broken[-1] ^= 1

    got = server.decrypt(sealed + bytes(broken) + bytes(100_000))

    assert (got.plain, got.ended) == (before, True)
    assert got.error in {"SSLError", "alert bad record mac"}


def test_an_alert_is_named(pair: Pair) -> None:
    _, server = pair

    got = server.decrypt(b"\x15\x03\x03\x00\x02\x02\x50")

    assert got.ended
    assert got.error is not None


def test_a_handshake_that_fails_leaves_an_alert_to_send(
    authorities: tuple[CertificateAuthority, CertificateAuthority],
) -> None:
    ours, theirs = authorities
    shown = LeafContexts(ours).context_for("example.com")
    assert shown is not None
    client = TlsRecords(client_context(theirs), server=False, name="example.com")
    server = TlsRecords(shown, server=True)
    client.shake(b"")
    server.shake(client.take())

    with pytest.raises(ssl.SSLCertVerificationError):
        client.shake(server.take())

    with pytest.raises(ssl.SSLError, match="unknown ca"):
        server.shake(client.take())


def test_an_end_within_the_handshake_sends_nothing(
    authorities: tuple[CertificateAuthority, CertificateAuthority],
) -> None:
    ours, _ = authorities
    client = TlsRecords(client_context(ours), server=False, name="example.com")

    assert client.end() == b""
