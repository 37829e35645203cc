"""An upstream must prove the judged name, and no client is shown a certificate of mitmproxy's."""

from mitmproxy.connection import Client, Server
from mitmproxy.proxy.context import Context
from mitmproxy.tls import ClientHelloData, TlsData

from claude_proxy.proxy.hooks.tls import TlsCertificates
from tests.proxy.layers.stage import options_of


def test_no_hook_of_mitmproxys_own_makes_certificates() -> None:
    """Its store would be a second authority, with a key that signs for every name."""
    certificates = TlsCertificates()
    client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
    context = Context(client, options_of())
    context.server = Server(address=("example.com", 443))
    start = TlsData(client, context)
    certificates.configure({"confdir"})
    certificates.running()
    certificates.tls_start_client(start)
    hello = ClientHelloData(context, None)  # type: ignore[arg-type]
    certificates.tls_clienthello(hello)

    assert not hasattr(certificates, "certstore") or certificates.certstore is None
    assert start.ssl_conn is None
    assert not hello.ignore_connection
    assert not hello.establish_server_tls_first
