"""A client gets a leaf for the judged name only, and an upstream must prove that name."""

import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from mitmproxy.connection import Client, Server
from mitmproxy.proxy.context import Context
from mitmproxy.tls import ClientHelloData, TlsData
from OpenSSL import SSL

from claude_proxy.proxy.hooks.tls import TlsCertificates, _select_protocol
from claude_proxy.trust.certificate_authority import CertificateAuthority
from tests.proxy.layers.stage import options_of
from tests.proxy.layers.tls_peers import client_context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    directory: Path = tmp_path_factory.mktemp("confdir")
    return CertificateAuthority.load_or_create(directory)


@pytest.fixture
def certificates(authority: CertificateAuthority) -> TlsCertificates:
    return TlsCertificates(authority)


def start_of(target: tuple[str, int] | None) -> TlsData:
    client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
    context = Context(client, options_of())
    context.server = Server(address=target)
    return TlsData(client, context)


def server_for(certificates: TlsCertificates, host: str) -> SSL.Connection:
    start = start_of((host, 443))
    certificates.tls_start_client(start)
    assert start.ssl_conn is not None
    return start.ssl_conn


def shake(
    server: SSL.Connection,
    context: ssl.SSLContext,
    name: str,
    session: ssl.SSLSession | None = None,
) -> ssl.SSLObject:
    """Shake hands from memory; return the client's side."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name, session=session)
    for _ in range(4):
        for turn in (client.do_handshake, server.do_handshake, lambda: client.read(1)):
            with suppress(ssl.SSLWantReadError, SSL.WantReadError):
                turn()
            if data := outgoing.read():
                server.bio_write(data)
            with suppress(SSL.WantReadError):
                incoming.write(server.bio_read(65536))
    return client


@pytest.mark.parametrize("host", ["example.com", "192.0.2.1", "2001:db8::1"])
def test_a_client_gets_a_leaf_for_the_judged_name(
    certificates: TlsCertificates, authority: CertificateAuthority, host: str
) -> None:
    client = shake(server_for(certificates, host), client_context(authority), host)

    shown = client.getpeercert(binary_form=True)
    assert shown is not None
    assert x509.load_der_x509_certificate(shown) == authority.leaf(host).certificate


def test_without_a_target_there_is_no_leaf_and_so_no_connection(
    certificates: TlsCertificates,
) -> None:
    start = start_of(None)

    certificates.tls_start_client(start)

    assert start.ssl_conn is None


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_1_is_not_supported(
    certificates: TlsCertificates, authority: CertificateAuthority
) -> None:
    context = client_context(authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")

    with pytest.raises(SSL.Error, match="unsupported protocol"):
        shake(server_for(certificates, "example.com"), context, "example.com")


def test_a_session_ticket_is_valid_for_its_own_leaf_only(
    certificates: TlsCertificates, authority: CertificateAuthority
) -> None:
    context = client_context(authority)
    context.check_hostname = False
    first = shake(server_for(certificates, "a.example"), context, "a.example")

    again = shake(server_for(certificates, "a.example"), context, "a.example", first.session)
    other = shake(server_for(certificates, "b.example"), context, "b.example", first.session)

    assert (again.session_reused, other.session_reused) == (True, False)


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        ([b"h2", b"http/1.1"], b"h2"),
        ([b"http/1.1", b"h2"], b"http/1.1"),
        ([b"spdy/3", b"http/1.1"], b"http/1.1"),
        ([b"spdy/3"], SSL.NO_OVERLAPPING_PROTOCOLS),
        ([], SSL.NO_OVERLAPPING_PROTOCOLS),
    ],
)
def test_the_servers_preferred_protocol_is_selected(offers: list[bytes], chosen: object) -> None:
    connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD))

    assert _select_protocol(connection, offers) is chosen or chosen in offers


def test_no_hook_of_mitmproxys_own_makes_certificates(certificates: TlsCertificates) -> None:
    """Its store would be a second authority, with a key that signs for every name."""
    certificates.configure({"confdir"})
    certificates.running()
    hello = ClientHelloData(start_of(("example.com", 443)).context, None)  # type: ignore[arg-type]
    certificates.tls_clienthello(hello)

    assert not hasattr(certificates, "certstore") or certificates.certstore is None
    assert not hello.ignore_connection
    assert not hello.establish_server_tls_first
